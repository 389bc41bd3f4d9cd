"""The page about a run that predicted findings, held against source and control."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from holdfast.callbacks.findings import FindingWriter
from holdfast.callbacks.report import page
from holdfast.callbacks.report.facts import ROWS
from holdfast.callbacks.report.task_page import Section, TaskReporter
from holdfast.tta.results import headline, parts_of
from holdfast.tta.tasks import Kept

#: Figures of a finding, as a table has them.
_FIGURES = ("auroc", "average_precision", "f1", "sensitivity", "specificity", "ece")


class FindingReporter(TaskReporter):
    """The page of a run that predicted findings."""

    leads: tuple[str, str] = ("auroc", "AUROC")
    writer: FindingWriter
    kept: dict[str, Kept]

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """By macro AUROC, and how much better what was served is, in points."""
        found, ours = dict(metrics), headline(metrics, "auroc")
        if not self.kept or ours is None:
            return found
        found["against"] = {}
        once = metrics["level"] == "group"
        for name, kept in self.kept.items():
            other = kept.scores(self.writer.domains, groups=groups, columns={}, aggregate=once)
            theirs = headline(other, "auroc")
            assert theirs is not None  # of the same images
            gap = {"auroc": theirs, "difference": round(ours - theirs, 4)}
            found["against"][name] = {**gap, "per_class": other["auroc"]["per_class"]}
        return found

    def head(self, metrics: Mapping[str, Any], method: str) -> list[str]:
        """The figures."""
        return [_tiles(metrics)]

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """The stream, findings and parts."""
        caption = "Shares are of images that are called to have a finding, one above the other."
        return [
            self.over_the_stream(caption),
            ("Findings", _findings(metrics, self.writer)),
            ("Domains and subgroups", _parts(metrics)),
        ]


def _tiles(metrics: Mapping[str, Any]) -> str:
    """The numbers to read first."""
    ours = headline(metrics, "auroc")
    if ours is None:
        return ""
    shown = {"macro AUROC, served": f"{ours:.1f} %"}
    for name, other in metrics.get("against", {}).items():
        shown[f"{name}"] = f"{other['auroc']:.1f} %"
    return page.tiles(shown)


def _findings(metrics: Mapping[str, Any], writer: FindingWriter) -> list[str]:
    """Figures of each finding."""
    if "present" not in metrics:
        return [
            page.paragraph("No finding of this stream is known, so nothing here says how good.")
        ]
    against = metrics.get("against", {})
    rows = [
        [
            name,
            *(metrics["present"].get(name), metrics["called"].get(name), threshold),
            *(metrics.get(figure, {}).get("per_class", {}).get(name) for figure in _FIGURES),
            *(of["per_class"].get(name) for of in against.values()),
        ]
        for name, threshold in zip(writer.class_names, writer.thresholds, strict=True)
    ][:ROWS]
    head = ["finding", "present, %", "called, %", "threshold"]
    head += [*(name.replace("_", " ") for name in _FIGURES), *(f"AUROC, {n}" for n in against)]
    text = (
        "In percent; thresholds are probabilities, fitted on the source's validation images. What "
        "is not defined, such as figures of a finding that nobody has, is left out."
    )
    return [page.table(head, rows), page.paragraph(text)]


def _parts(metrics: Mapping[str, Any]) -> list[str]:
    """Figures of each domain and subgroup."""
    rows = [
        [split, value, part.get("images"), part.get("groups")]
        + [headline(part, figure) for figure in _FIGURES]
        for split, value, part in parts_of(metrics)
    ]
    names = ["split", "value", "images", "groups", *(f"{name}, macro" for name in _FIGURES)]
    return [page.table(names, rows[:ROWS], texts=2)] if rows else []
