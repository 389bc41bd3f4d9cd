"""Pictures of the benchmark: what each policy makes of each cell, and where ours wins and loses."""

from collections.abc import Sequence
from math import ceil
from statistics import fmean

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from holdfast.benchmarks.ranking import title_of
from holdfast.benchmarks.summary import OURS, better, figures, regret
from holdfast.benchmarks.tables import Row
from holdfast.tta.style import BLUE, GREY, RED, styled

_SPAN = 30.0  # points beyond which a picture tells no difference


@styled
def regret_against_gain(rows: Sequence[Row]) -> Figure:
    """A panel a policy, a dot a cell: what the method alone gains or loses, and what is left of it
    under the policy.

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
        alone = np.clip([row["unguarded"] - better(row) for row in own], -_SPAN, _SPAN)
        guarded = np.clip([row["guarded"] - better(row) for row in own], -_SPAN, _SPAN)
        below = guarded < -1
        axes.plot([-_SPAN, _SPAN], [-_SPAN, _SPAN], color=GREY, linewidth=0.8, linestyle="--")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.scatter(alone[~below], guarded[~below], s=12, alpha=0.6, linewidths=0, color=BLUE)
        axes.scatter(alone[below], guarded[below], s=12, alpha=0.6, linewidths=0, color=RED)
        measured = figures(own)
        kept = measured["kept_gain"]
        axes.set_title(
            f"{title_of(name)}: {measured['below_rate']:.0%} below, worst "
            f"{measured['worst_regret']:.1f}, "
            f"kept {'–' if kept is None else f'{kept:.0%}'}",
            fontsize=9,
        )
        axes.set_aspect("equal")
    figure.supxlabel("unguarded minus the better of source and control (points)", fontsize=10)
    figure.supylabel("guarded minus the better (points)", fontsize=10)
    return figure


@styled
def heat_map(rows: Sequence[Row], policy: str = OURS) -> Figure:
    """Guarded score minus the better of source and control: a line an image set and shift, a column
    a stream and method.

    Args:
        rows: with their references.
        policy: whose.
    """
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["policy"] == policy:
            shift = row["shift"] if row["shift"] == "none" else f"{row['shift']} {row['severity']}"
            line = (
                f"{row['data']} {row['target']}, {shift}"
                if row["data"] != row["target"]
                else f"{row['data']}, {shift}"
            )
            cells.setdefault((line, f"{row['stream']} {row['method']}"), []).append(-regret(row))
    lines, columns = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    values = np.full((len(lines), len(columns)), np.nan)
    for (line, column), differences in cells.items():
        values[lines.index(line), columns.index(column)] = fmean(differences)
    figure = Figure(figsize=(4 + 0.24 * len(columns), 2.4 + 0.2 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#eef0f2")
    image = axes.imshow(values, cmap="RdBu", norm=TwoSlopeNorm(0, -10, 10), aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(lines)), lines, fontsize=7)
    bar = figure.colorbar(image, extend="both", shrink=0.6, pad=0.01)
    bar.set_label("guarded minus the better (points)", fontsize=8)
    title = "mean over networks, batch sizes, rates and seeds; grey: not run"
    axes.set_title(f"{title_of(policy)}: {title}", fontsize=9)
    return figure
