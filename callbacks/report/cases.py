"""The page about a run that predicted masks: what source and control would have done, case by case,
and outlines over images.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from holdfast.callbacks.cases import CaseWriter
from holdfast.callbacks.report import page
from holdfast.callbacks.report.facts import ROWS, gap
from holdfast.callbacks.report.overlays import overlay, read_mask
from holdfast.callbacks.report.task_page import UNUPDATED, Section, TaskReporter
from holdfast.callbacks.report.told import resamples
from holdfast.callbacks.report.worth import answer
from holdfast.callbacks.trajectory import Course, course_of_cases, over_batches
from holdfast.tta.csvfile import read_rows
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.masks.kept import KeptMasks
from holdfast.tta.masks.scores import dice_gap
from holdfast.tta.results import parts_of
from holdfast.tta.scores import named_values
from holdfast.tta.style import styled

_COLORS = {"source": page.SOURCE, "control": page.CONTROL, "served": page.SERVED}
#: Cases that are shown of each kind.
_SHOWN = 6
#: Figures of a class, as a table has them.
_FIGURES = ("dice", "iou", "hd95", "assd", "nsd", "volume_error", "shown", "false_alarms")


class CaseReporter(TaskReporter):
    """The page of a run that predicted masks."""

    noun: ClassVar[str] = "case"
    leads: tuple[str, str] = ("dice", "Dice")
    writer: CaseWriter
    kept: dict[str, KeptMasks]

    def take(self, name: str, output: Tensor, truth: Tensor | None, index: Sequence[int]) -> None:
        """Keep the figures of each case."""
        steps = [self.writer.images.place(row).shown_spacing for row in index]
        own = {"case": self.kept[name].cases(output, truth, steps)}
        self.kept[name].take(batch_of_all(own)["case"])

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """In all and in each part, by difference of Dice with its interval."""
        found = _copied(metrics)
        if not self.kept or "dice" not in found:
            return found
        domains = np.asarray(self.writer.domains, dtype=object)
        everything = np.ones(len(groups), dtype=np.bool_)
        parts = [(found, everything)]
        parts += [(part, domains == name) for name, part in found["domains"].items()]
        for name, values in columns.items():
            named = named_values(values)
            parts += [(part, named == value) for value, part in found["subgroups"][name].items()]
        for part, member in parts:
            gaps = {name: self._gap(name, member, groups, resamples(asked)) for name in UNUPDATED}
            if None not in gaps.values():
                part["against"] = gaps
        return found

    def _gap(
        self, name: str, member: npt.NDArray[np.bool_], groups: npt.NDArray[Any], repeats: int
    ) -> dict[str, Any] | None:
        ours, theirs = (
            {"dice": kept.figures["dice"][member]} for kept in (self.writer.kept, self.kept[name])
        )
        return dice_gap(ours, theirs, groups[member], repeats)

    def head(self, metrics: Mapping[str, Any], method: str) -> list[str]:
        """Whether adapting was worth it, and the figures."""
        return [answer(metrics, method).html(), _tiles(metrics)]

    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """The stream, classes, parts, and cases with outlines."""
        return [
            ("Over the stream", self._stream()),
            ("Classes", _classes(metrics)),
            ("Domains and subgroups", _parts(metrics)),
            ("Cases", self._cases()),
        ]

    def _stream(self) -> list[str]:
        """Dice and the size of what is predicted, over the course of the stream."""
        kept = {**self.kept, "served": self.writer.kept}
        courses = {
            name: course_of_cases(of.figures["dice"], of.figures["share"], of.names)
            for name, of in kept.items()
        }
        draw = partial(_curves, courses, len(self.tracer.rows))
        caption = (
            "Mean Dice, and the share of pixels that are foreground, in a window that slides along "
            "the stream. Where served shrinks or grows and the control does not, look closely."
        )
        return [page.legend({name: _COLORS[name] for name in courses}), page.figure(draw, caption)]

    def _cases(self) -> list[str]:
        """Cases with outlines: those of lowest Dice, and those that adapting changed most."""
        if self.writer.folder is None:
            return [page.paragraph("No masks were kept: predictions.masks=false.")]
        figures = self.writer.kept.figures
        dice = figures["dice"].mean(1)
        kinds: list[tuple[str, npt.NDArray[np.float64]]] = []
        if np.isfinite(dice).any():
            kinds.append(("Lowest Dice", np.where(np.isfinite(dice), -dice, -np.inf)))
        if self.kept:
            kinds.append(("Changed most against the control", self._changes()))
        parts = []
        for title, values in kinds or [("The first", -np.arange(len(dice), dtype=np.float64))]:
            shown = np.argsort(-values, kind="stable")[:_SHOWN]
            pictures = self._pictures([int(row) for row in shown if np.isfinite(values[row])])
            parts += [page.heading(title), page.grid("pictures", pictures)]
        text = "Outlines: predicted classes in colour, what is true in white."
        return [page.paragraph(text), *parts]

    def _changes(self) -> npt.NDArray[np.float64]:
        """(N,) by how much what was served differs from the control: in Dice, or else in size."""
        ours, control = self.writer.kept.figures, self.kept["control"].figures
        name = "dice" if np.isfinite(ours["dice"]).any() else "share"
        return np.asarray(np.abs(ours[name] - control[name]).mean(1))

    def _pictures(self, places: Sequence[int]) -> list[str]:
        wanted, images = set(places), self.writer.images
        rows = {at: row for at, row in enumerate(read_rows(self.writer.path)) if at in wanted}
        found = []
        for at in places:
            number, lost = int(self.writer.rows[at]), dict[int, str]()
            batch = images.batch([number], lost)
            if lost or self.writer.folder is None:
                continue
            mask = read_mask(self.writer.folder / rows[at]["mask"], images.place(number))
            picture = overlay(batch["image"][0], mask, batch["mask"][0])
            found.append(
                page.picture(picture.numpy(), page.shortened(rows[at]["id"], 40), self._told(at))
            )
        return found

    def _told(self, at: int) -> str:
        """Dice of each class of a case, of what was served and of the control."""
        ours, other = self.writer.kept, self.kept.get("control")
        told = []
        for place, name in enumerate(ours.names):
            value = ours.figures["dice"][at, place]
            text = f"{name}: {100 * ours.figures['share'][at, place]:.1f} % of the pixels"
            if np.isfinite(value):
                text += f", Dice {100 * value:.0f}"
                if other is not None:
                    text += f" (control {100 * other.figures['dice'][at, place]:.0f})"
            told.append(text)
        return "; ".join(told)


def _tiles(metrics: Mapping[str, Any]) -> str:
    """The numbers to read first."""
    shown = {}
    if "dice" in metrics:
        shown["Dice, served"] = f"{metrics['dice']:.1f} %"
        for name, other in metrics.get("against", {}).items():
            shown[f"Dice, {name}"] = f"{other['dice']:.1f} %"
        held = gap(metrics, "control")
        if held is not None:
            shown["served against control (95 %)"] = held
        shown["HD95"] = f"{metrics['hd95']:.1f} mm"
    return page.tiles(shown) if shown else ""


def _classes(metrics: Mapping[str, Any]) -> list[str]:
    """Figures of each class."""
    if "per_class" not in metrics:
        return [page.paragraph("No case of this stream has a mask, so nothing here says how good.")]
    names = ["class", *(name.replace("_", " ") for name in _FIGURES)]
    rows = [
        [name, *(of.get(figure) for figure in _FIGURES)]
        for name, of in list(metrics["per_class"].items())[:ROWS]
    ]
    text = (
        "Shares in percent, distances in mm, or in pixels where files tell no spacing. Where "
        "neither mask has a pixel of a class, Dice is 100, and where one has, it is 0: a false "
        "alarm, where it is the predicted one."
    )
    return [page.table(names, rows), page.paragraph(text)]


def _parts(metrics: Mapping[str, Any]) -> list[str]:
    """Dice of each domain and subgroup."""
    rows = [
        [split, value, part.get("images"), part.get("groups"), part.get("dice"), part.get("hd95")]
        + [gap(part, name) for name in UNUPDATED]
        for split, value, part in parts_of(metrics)
    ]
    names = ["split", "value", "cases", "groups", "Dice, %", "HD95"]
    names += [f"against {name}" for name in UNUPDATED]
    return [page.table(names, rows[:ROWS], texts=2)] if rows else []


@styled
def _curves(courses: Mapping[str, Course], batches: int) -> Figure:
    """Dice and foreground of all models over the stream."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, course in courses.items():
        color = _COLORS[name]
        if len(course.scores):
            places = over_batches(course.score_centers, course.images, batches)
            upper.plot(places, course.scores, color=color)
        places = over_batches(course.share_centers, course.images, batches)
        lower.plot(places, 100 * course.shares.sum(1), color=color)
    upper.set_ylabel("Dice (%)")
    lower.set_ylabel("foreground (%)")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("batch")
    return figure


def _copied(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The same, which can be added to."""
    return {
        key: _copied(value) if isinstance(value, Mapping) else value
        for key, value in metrics.items()
    }
