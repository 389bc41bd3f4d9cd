"""The study of guards: the figures, goals and pictures of its rows."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.goals import by_axis, judged, markdown
from holdfast.benchmarks.pages import leave
from holdfast.benchmarks.runner import read_rows
from holdfast.benchmarks.summary import (
    OURS,
    alone,
    better,
    figures,
    policy_title,
    summarize,
    with_references,
)
from holdfast.benchmarks.tables import Row
from holdfast.tta.style import BLUE, GREY, RED, styled

_SPAN = 30.0  # points beyond which a picture tells no difference


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """Write ``summary.json``, pictures and, if asked, the page of the rows in a folder.

    Returns:
        The content of ``summary.json``, and its figures as text.
    """
    results, references = (read_rows(folder, name) for name in ("results", "references"))
    rows = with_references(results, references)
    ours = [row for row in rows if row["policy"] == OURS]
    summary = {
        **summarize(results, references),
        "goals": judged(ours),
        "groups": by_axis(ours, alone(ours)),
    }
    pictures = {"regret": regret_against_gain(rows)} if rows else {}
    return leave(config, folder, summary, markdown(summary), pictures)


@styled
def regret_against_gain(rows: Sequence[Row]) -> Figure:
    """A panel a policy, a dot a cell: what the method alone gains or loses, and what is left of it
    under the policy; red is more than a point below the better of source and control.

    Args:
        rows: with their references, of all policies.
    """
    names = sorted({row["policy"] for row in rows}, key=lambda name: (name != OURS, name))
    columns = min(3, len(names))
    lines = ceil(len(names) / columns)
    figure = Figure(figsize=(0.6 + 3.6 * columns, 0.8 + 3.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, names, strict=False):
        own = [row for row in rows if row["policy"] == name]
        bare, guarded = (
            np.clip([row[column] - better(row) for row in own], -_SPAN, _SPAN)
            for column in ("unguarded", "guarded")
        )
        axes.plot([-_SPAN, _SPAN], [-_SPAN, _SPAN], color=GREY, linewidth=0.8, linestyle="--")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        colors = np.where(guarded < -1, RED, BLUE)
        axes.scatter(bare, guarded, s=12, alpha=0.6, linewidths=0, c=colors)
        measured = figures(own)
        told = f"{measured['below_rate']:.0%} below, worst {measured['worst_regret']:.1f}"
        axes.set_title(f"{policy_title(name)}: {told}", fontsize=9)
        axes.set_aspect("equal")
    figure.supxlabel("unguarded minus the better of source and control (points)", fontsize=10)
    figure.supylabel("guarded minus the better (points)", fontsize=10)
    return figure
