"""The report of the study of guards: goals and figures, and where each guard wins and loses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from holdfast.benchmarks.goals import goal_lines, titled_groups
from holdfast.benchmarks.options import BenchmarkConfig
from holdfast.benchmarks.summary import (
    OURS,
    as_lines,
    better,
    figures,
    policies_of,
    regret,
    target_of,
    title_of,
)
from holdfast.benchmarks.tables import STREAM_KEYS, Row, key_of
from holdfast.callbacks.report import page
from holdfast.tta.style import BLUE, GREY, RED, styled

#: Dots above which a picture is made of pixels: as paths they would outgrow the page.
_DOTS = 3000
#: Cells that are named where many fall short of a goal.
_LISTED = 10
_SPAN = 30.0  # points beyond which a picture tells no difference
_TITLE = "Benchmark of guards"
_FIGURES = (
    "Regret: points missing to the better of source and control. Below: cells more than a point "
    "below it. Harm averted: harm cells that end within a point of it. Detected in time: harm "
    "cells with an alarm before the running loss exceeds 5 points. False resets: other cells with "
    "any reset. Kept gain: guarded over unguarded gain, where there is one. Normalisation regret: "
    "of the statistics chosen without labels. Cost: the guard's time over that of all else."
)
_REGRET = (
    "A dot a cell. To the right the method alone is worth its while, to the left it harms; height "
    "is what is left under the guard. A perfect guard keeps the dashed line on the right and zero "
    "on the left; red is more than a point below."
)
_HEAD = (
    *("data", "network", "shift", "stream", "method", "batch", "lr", "seed"),
    *("source", "control", "alone", "ours", "against the better"),
)


def benchmark_report(
    config: BenchmarkConfig, summary: Mapping[str, Any], rows: Sequence[Row]
) -> str:
    """The page, as HTML.

    Args:
        config: of the benchmark.
        summary: content of ``summary.json``.
        rows: results with their references.
    """
    yaml = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
    settings = ("Settings", [page.details("Configuration, resolved", yaml)])
    if not rows:
        lead = "No cell has a result yet; errors.csv says what failed."
        return page.page(_TITLE, lead, [settings])
    counts = {
        "guarded run": len(rows),
        "stream": len({key_of(row, STREAM_KEYS) for row in rows}),
        "method": len({row["method"] for row in rows}),
        "seed": len({row["seed"] for row in rows}),
    }
    lead = ", ".join(page.counted(number, thing) for thing, number in counts.items())
    sections = [
        ("Goals", _goals(summary)),
        ("Figures", _figures(summary)),
        ("Regret against gain", [page.figure(lambda: _dotted(rows), _REGRET, wide=True)]),
        ("Cells", _cells([row for row in rows if row["policy"] == OURS])),
        settings,
    ]
    return page.page(_TITLE, f"{lead}. Balanced accuracy, in percent and points.", sections)


def _goals(summary: Mapping[str, Any]) -> list[str]:
    head, *lines = goal_lines(summary)
    parts = [page.table(head, lines)]
    for line in summary["goals"]:
        cells = line["cells"]
        if cells and line["met"] is False:
            more = [f"and {len(cells) - _LISTED} more"] if len(cells) > _LISTED else []
            parts.append(page.heading(f"Short of {line['goal']} {line['bound']}"))
            parts.append(page.items([*cells[:_LISTED], *more]))
    return parts


def _figures(summary: Mapping[str, Any]) -> list[str]:
    parts = [page.paragraph(_FIGURES)]
    for title, named in {"policy": policies_of(summary), **titled_groups(summary)}.items():
        head, *lines = as_lines(named, title)
        parts.append(page.table(head, lines, marked=[0] if title == "policy" else []))
    return parts


def _dotted(rows: Sequence[Row]) -> Figure:
    figure = regret_against_gain(rows)
    for axes in figure.axes:
        for dots in axes.collections:
            dots.set_rasterized(len(rows) > _DOTS)
    return figure


def _cells(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []

    def draw() -> Figure:
        figure = heat_map(rows)
        figure.axes[0].set_facecolor(page.LINE)
        return figure

    worst = sorted(rows, key=regret, reverse=True)[:_LISTED]
    caption = "Under our guard: points against the better of source and control."
    return [
        page.figure(draw, caption, wide=True),
        page.heading("Where our guard does worst"),
        page.table(_HEAD, [_line(row) for row in worst], texts=5),
    ]


def _line(row: Row) -> list[Any]:
    named = [
        *(target_of(row), row["network"], f"{row['shift']} {row['severity'] or ''}"),
        *(row["stream"], row["method"], row["batch_size"]),
        *(None if row["lr"] is None else f"{row['lr']:g}", row["seed"]),
    ]
    scores = [float(row[name]) for name in ("source", "control", "unguarded", "guarded")]
    return [*named, *scores, page.signed(-regret(row))]


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
        for some, color in ((~below, BLUE), (below, RED)):
            style = {"s": 12, "alpha": 0.6, "linewidths": 0, "color": color}
            axes.scatter(alone[some], guarded[some], **style)
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
            place = (f"{target_of(row)}, {shift}", f"{row['stream']} {row['method']}")
            cells.setdefault(place, []).append(-regret(row))
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
