"""The forest plot: balanced accuracy of each subgroup with its interval, and source and control."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from holdfast.callbacks.report import page
from holdfast.callbacks.report.facts import ROWS, RunView
from holdfast.callbacks.report.page import CARD, CONTROL, INK, LINE, SERVED, SOFT, SOURCE, shortened
from holdfast.tta.intervals import FEW

#: Inches: about as wide as a phone shows; of a line; and of what stands around them all.
_WIDTH, _LINE, _AROUND = 4.8, 0.3, 0.95
#: Of a line, by which the others stand lower, or the dot would hide them.
_BESIDE = 0.3
#: Characters of a name, which has a third of the width.
_LONGEST = 18
#: How models that learn nothing are drawn: colour and mark, for colours alone are not told apart by
#: all.
_OTHERS = {"source": (SOURCE, "D"), "control": (CONTROL, "s")}


class ForestLine(NamedTuple):
    """A line of the plot.

    Attributes:
        name: of the subgroup, or of what it is split by.
        served: balanced accuracy of what was served, in percent; None of a heading.
        ends: of its interval; None where it has too few patients for one.
        others: balanced accuracy of source and control, by name.
    """

    name: str
    served: float | None = None
    ends: Sequence[float] | None = None
    others: Mapping[str, float] = {}


def lines_of(view: RunView, split: Mapping[str, Mapping[str, Any]]) -> list[ForestLine]:
    """The whole stream, then each subgroup under a heading, in the order of its tables.

    Args:
        view: of the run.
        split: metrics by value, by the column's name.
    """
    others = {name: view.score(name) for name in view.models if name in _OTHERS}
    whole = _line("all", {**view.facts.metrics, "groups": _groups(view)}, others)
    found = [] if whole is None else [whole]
    for name, parts in split.items():
        scored = list(_scored(parts))
        worst = sorted(scored, key=lambda line: line.served or 0.0)[:ROWS]
        kept = [line for line in scored if line in worst]
        found += [ForestLine(f"by {name}"), *kept] if kept else []
    return found


def _groups(view: RunView) -> int:
    return len(np.unique(view.units.groups))


def _scored(parts: Mapping[str, Any]) -> Iterator[ForestLine]:
    for value, part in parts.items():
        held = part.get("against", {})
        others = {name: held[name]["balanced_accuracy"] for name in _OTHERS if name in held}
        line = _line(value, part, others)
        if line is not None:
            yield line


def _line(name: str, part: Mapping[str, Any], others: Mapping[str, float]) -> ForestLine | None:
    served = part.get("balanced_accuracy")
    if served is None or not np.isfinite(served):
        return None
    ends = part.get("intervals", {}).get("balanced_accuracy")
    return ForestLine(name, served, None if part["groups"] < FEW else ends, others)


def forest(view: RunView, split: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The plot, where there are two subgroups to compare."""
    lines = lines_of(view, split)
    if len([line for line in lines if line.served is not None]) < 3:
        return []
    text = (
        "Balanced accuracy in percent. Dots: what was served, with its 95 % interval; hollow and "
        f"without one: fewer than {FEW} patients or slides. Dashed: the whole stream."
    )
    return [page.figure(partial(drawn, lines), text, "Who is served worse.")]


def drawn(lines: Sequence[ForestLine]) -> Figure:
    """The figure.

    Args:
        lines: from top to bottom; the first is of the whole stream.
    """
    height = _AROUND + _LINE * len(lines)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(lines):
        if line.served is None:
            axes.axhline(place - 0.5, color=LINE, linewidth=0.6)
        else:
            _draw(axes, place, line.served, line)
    if lines[0].served is not None:
        axes.axvline(lines[0].served, color=SOFT, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(lines)), [shortened(line.name, _LONGEST) for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontstyle("italic" if line.served is None else "normal")
        label.set_color(SOFT if line.served is None else INK)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("balanced accuracy (%)")
    _name(figure, axes, lines)
    return figure


def _draw(axes: Axes, place: int, served: float, line: ForestLine) -> None:
    for name, score in line.others.items():
        color, mark = _OTHERS[name]
        axes.plot(score, place + _BESIDE, mark, color=color, markersize=4, markeredgewidth=0)
    if line.ends is not None:
        axes.plot(line.ends, [place, place], color=SERVED, linewidth=2, solid_capstyle="butt")
    inside = CARD if line.ends is None else SERVED
    axes.plot(served, place, "o", color=inside, markeredgecolor=SERVED, markersize=7)


def _name(figure: Figure, axes: Axes, lines: Sequence[ForestLine]) -> None:
    """Say which mark is whose."""
    axes.plot([], [], "o", color=SERVED, markersize=7, label="served")
    for name in dict.fromkeys(name for line in lines for name in line.others):
        color, mark = _OTHERS[name]
        axes.plot([], [], mark, color=color, markersize=5, label=name)
    figure.legend(loc="outside upper left", ncols=3)
