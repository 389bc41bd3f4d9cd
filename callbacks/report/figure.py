"""The page about a run of a task that has one figure and no page of its own."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from holdfast.callbacks.predictions import PredictionWriter
from holdfast.callbacks.report import page
from holdfast.callbacks.report.facts import ROWS
from holdfast.callbacks.report.task_page import Section, TaskReporter
from holdfast.tta.results import parts_of
from holdfast.tta.tasks import Kept


class FigureReporter(TaskReporter):
    """The page of a run, led by the figure that its task watches; arguments as of ``Watched``."""

    writer: PredictionWriter
    kept: dict[str, Kept]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        watch = self.writer.task.watch
        self.leads = (watch, watch.replace("_", " "))

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """By the figure, and how much better what was served is, in points; not where groups count
        once, for of source and control images are counted as they come.
        """
        found, watch = dict(metrics), self.leads[0]
        if not self.kept or watch not in metrics or metrics["level"] == "group":
            return found
        found["against"] = {}
        for name, kept in self.kept.items():
            theirs = kept.scores(self.writer.domains, groups=groups, columns={})[watch]
            found["against"][name] = {
                watch: theirs,
                "difference": round(metrics[watch] - theirs, 4),
            }
        return found

    def head(self, metrics: Mapping[str, Any], method: str) -> list[str]:
        """The figure of what was served, and of source and control."""
        watch, words = self.leads
        if watch not in metrics:
            return []
        shown = {f"{words}, served": f"{metrics[watch]:.1f} %"}
        for name, other in metrics.get("against", {}).items():
            shown[name] = f"{other[watch]:.1f} %"
        return [page.tiles(shown)]

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """The stream, and its parts."""
        caption = "Shares are of images that are called a class, one above the other."
        parts = _parts(metrics, self.leads)
        return [self.over_the_stream(caption), ("Domains and subgroups", parts)]


def _parts(metrics: Mapping[str, Any], leads: tuple[str, str]) -> list[str]:
    """The figure of each domain and subgroup."""
    watch, words = leads
    rows = [
        [split, value, part.get("images"), part.get("groups"), part.get(watch)]
        for split, value, part in parts_of(metrics)
    ]
    names = ["split", "value", "images", "groups", f"{words}, %"]
    return [page.table(names, rows[:ROWS], texts=2)] if rows else []
