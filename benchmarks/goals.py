"""The guard's goals, whether it meets them, and the cells in which it does not; pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.benchmarks.grid import ONE, SUBSET
from holdfast.benchmarks.pages import table, target_title
from holdfast.benchmarks.summary import (
    TOLERANCE,
    as_lines,
    averted,
    figures,
    gained,
    harmed,
    kept,
    policies_of,
    regret,
)
from holdfast.benchmarks.tables import Row

#: Orders that show few of the classes: what suits them cannot be told from a shift for sure, so
#: more may be lost there.
FEW = (ONE, SUBSET)
#: Cells that are named where many fall short of a goal.
_LISTED = 10
#: Axes by whose values figures are told apart, with what tables call them. The guard's constants
#: were chosen without the image set that a line of ``data`` is about.
AXES = {
    "data": "image set",
    "stream": "order",
    "network": "network",
    "batch_size": "batch size",
}


class Goal(NamedTuple):
    """A bound on a figure.

    Args:
        figure: a key of ``figures``.
        title: what it is called.
        limit: the bound.
        most: whether it is the largest value that is wanted; else the least.
        form: how the figure is written.
        short: whether a cell falls short of it; None: a figure that no single cell misses.
        few: whether it is about the orders ``FEW`` alone, or about the others; None: about all.
    """

    figure: str
    title: str
    limit: float
    most: bool
    form: str
    short: Callable[[Row], bool] | None = None
    few: bool | None = None

    @property
    def bound(self) -> str:
        """The bound in words."""
        return f"{'≤' if self.most else '≥'} {self.form.format(self.limit)}"


def _loses(most: float) -> Callable[[Row], bool]:
    """Whether a cell loses more points than this."""
    return lambda row: regret(row) > most


#: Points that may be lost at worst, and where few classes show; and the share of a gain to keep.
_WORST, _WORST_OF_FEW, _KEPT = 3.0, 5.0, 0.95
_POINTS, _SHARE = "{:.1f}", "{:.0%}"
_FEW_TITLE = "worst regret, few classes"
#: Each over all cells, hence over all left-out image sets.
GOALS = (
    Goal("mean_regret", "mean regret", -2.0, True, _POINTS),
    Goal("worst_regret", "worst regret", _WORST, True, _POINTS, _loses(_WORST), few=False),
    Goal("worst_regret", _FEW_TITLE, _WORST_OF_FEW, True, _POINTS, _loses(_WORST_OF_FEW), few=True),
    Goal("below_rate", "below", 0.05, True, _SHARE, _loses(TOLERANCE)),
    Goal(
        *("harm_avoided", "harm averted", 0.95, False, _SHARE),
        lambda row: harmed(row) and not averted(row),
    ),
    Goal(
        *("false_reset_rate", "false resets", 0.02, True, _SHARE),
        lambda row: not harmed(row) and row["resets"] > 0,
    ),
    Goal(
        *("median_kept_gain", "kept gain, median", _KEPT, False, _SHARE),
        lambda row: gained(row) and kept(row) < _KEPT,
    ),
)


def judged(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every goal with the value that was reached.

    Args:
        rows: ours, with their references.

    Returns:
        A dictionary a goal: ``goal``, ``bound`` and ``value`` as texts, ``met`` (None without a
        cell to tell by), and ``cells`` that fall short, the worst first.
    """
    lines = []
    for goal in GOALS:
        own = [row for row in rows if goal.few is None or goal.few == (row["stream"] in FEW)]
        value = figures(own)[goal.figure]
        met = None
        if value is not None:
            met = value <= goal.limit if goal.most else value >= goal.limit
        short = [row for row in own if goal.short is not None and goal.short(row)]
        lines.append(
            {
                "goal": goal.title,
                "bound": goal.bound,
                "value": "–" if value is None else goal.form.format(value),
                "met": met,
                "cells": [name_of(row) for row in sorted(short, key=regret, reverse=True)],
            }
        )
    return lines


def by_axis(
    rows: Sequence[Row], alone: Sequence[Row]
) -> dict[str, dict[str, dict[str, Mapping[str, Any]]]]:
    """The figures by each axis and value: ``ours``, and ``unguarded``.

    Args:
        rows: ours, with their references.
        alone: the unguarded runs of the same cells.
    """
    return {
        axis: {
            str(value): {
                "ours": figures([row for row in rows if row[axis] == value]),
                "unguarded": figures([row for row in alone if row[axis] == value]),
            }
            for value in sorted({row[axis] for row in rows})
        }
        for axis in AXES
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """All figures: by policy, ours by image set, order, network and batch size, then the goals, and
    the worst cells of those that are missed.
    """
    groups = {
        title: {
            f"{value}{suffix}": figures[key]
            for value, figures in summary["groups"][axis].items()
            for key, suffix in (("ours", ""), ("unguarded", ", unguarded"))
        }
        for axis, title in AXES.items()
        if len(summary["groups"][axis]) > 1  # an axis with one value tells nothing
    }
    shown = {"policy": policies_of(summary), **groups}
    parts = [table(*as_lines(named, title)) for title, named in shown.items()]
    words = {True: "met", False: "missed", None: "–"}
    lines = [
        [line["goal"], line["bound"], line["value"], words[line["met"]], str(len(line["cells"]))]
        for line in summary["goals"]
    ]
    parts.append(table(["goal", "bound", "reached", "", "cells short"], lines))
    for line in summary["goals"]:
        if line["cells"] and line["met"] is False:
            worst = "\n".join(f"- {cell}" for cell in line["cells"][:_LISTED])
            parts.append(f"Worst, {line['goal']}:\n\n{worst}")
    return "\n\n".join(parts)


def name_of(row: Row) -> str:
    """A cell in words, with what it lost."""
    rate = "" if row["lr"] is None else f" {row['lr']:g}"
    return (
        f"{target_title(row)}, {row['network']}, {row['stream']}, "
        f"{row['batch_size']} a batch, {row['method']}{rate}, seed {row['seed']}: {regret(row):.1f}"
    )
