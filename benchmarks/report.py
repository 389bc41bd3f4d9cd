"""The report of ``benchmark.py``: methods and guards in order, goals and figures, and where each
guard wins and loses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from holdfast.benchmarks.goals import goal_lines, titled_groups
from holdfast.benchmarks.options import BenchmarkConfig
from holdfast.benchmarks.pictures import heat_map, regret_against_gain
from holdfast.benchmarks.ranking import TOLERANCE, Entry, ranked, title_of
from holdfast.benchmarks.summary import OURS, as_lines, policies_of, regret
from holdfast.benchmarks.tables import STREAM_KEYS, Row, key_of
from holdfast.callbacks.report import page

#: Dots above which a picture is made of pixels: as paths they would outgrow the page.
_DOTS = 3000
_RESAMPLES = 500
#: Cells that are named where many fall short of a goal.
_LISTED = 10


def benchmark_report(
    config: BenchmarkConfig,
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    predictions: Sequence[Row],
) -> str:
    """The page, as HTML.

    Args:
        config: of the benchmark.
        summary: content of ``summary.json``.
        rows: results with their references.
        predictions: rows of ``predictions.csv``.
    """
    streams = {key_of(row, STREAM_KEYS) for row in rows}
    seeds = {row["seed"] for row in rows}
    settings = page.details(
        "Configuration, resolved", OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
    )
    lead = ", ".join(
        [
            page.counted(len(rows), "guarded run"),
            page.counted(len(streams), "stream"),
            page.counted(len({row["method"] for row in rows}), "method"),
            page.counted(len(seeds), "seed"),
        ]
    )
    if not rows:
        return page.page(
            "Benchmark of guards",
            "No cell has a result yet; errors.csv says what failed.",
            [("Settings", [settings])],
        )
    entries = ranked(rows, predictions, _RESAMPLES)
    sections = [
        ("Ranks", _ranks(entries, rows, len(seeds), bool(predictions))),
        ("Goals", _goals(summary)),
        ("Figures", _figures(summary)),
        ("Regret against gain", _regret(rows)),
        ("Cells", _cells(rows)),
        ("Settings", [settings]),
    ]
    return page.page(
        "Benchmark of guards", f"{lead}. Balanced accuracy, in percent and points.", sections
    )


def _ranks(entries: Sequence[Entry], rows: Sequence[Row], seeds: int, images: bool) -> list[str]:
    drawn = " and ".join(
        [*(["seeds"] if seeds > 1 else []), *(["images of each stream"] if images else [])]
    )
    how = (
        f"Intervals hold 95 % of {_RESAMPLES} resamples of {drawn}."
        if drawn
        else "There is nothing to resample for intervals."
    )
    text = (
        "Each method, left alone and under each guard, by its mean difference from the control of "
        "the same streams: batch "
        f"statistics and no updates. {how} A cell is won or lost beyond {TOLERANCE:g} point, and "
        "regret is what is missing to "
        "the better of source and control."
    )
    streams = {key_of(row, STREAM_KEYS): row for row in rows}.values()
    source = sum(row["source"] - row["control"] for row in streams) / len(streams)
    head = [
        *("rank", "method", "guard", "cells", "score", "against control", "95 %"),
        *("won", "tied", "lost", "regret", "worst"),
    ]
    table = page.table(
        head,
        [
            [
                *(
                    str(rank),
                    entry.method,
                    title_of(entry.policy),
                    entry.cells,
                    entry.score,
                    page.signed(entry.gain),
                ),
                None if entry.interval is None else " to ".join(map(page.signed, entry.interval)),
                *(*entry.outcomes, entry.regret, entry.worst),
            ]
            for rank, entry in enumerate(entries, start=1)
        ],
        texts=3,
        marked=[index for index, entry in enumerate(entries) if entry.policy == OURS],
    )
    caption = "Mean difference from the control, with its interval; filled: under our guard."
    figure = page.figure(lambda: _forest(entries), caption)
    over = page.counted(len(streams), "stream")
    note = (
        f"The source model itself, over {over}: {page.signed(source)} points against the control."
    )
    return [page.paragraph(text), table, page.grid("two", [figure]), page.paragraph(note)]


def _forest(entries: Sequence[Entry]) -> Figure:
    """A line an entry: its gain and interval."""
    figure = Figure(figsize=(4.8, 0.8 + 0.2 * len(entries)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=page.SOFT, linewidth=0.8)
    for place, entry in enumerate(reversed(entries)):
        color = (
            page.SERVED
            if entry.policy == OURS
            else page.ADAPTED
            if entry.policy == "off"
            else page.SOURCE
        )
        if entry.interval is not None:
            axes.plot(entry.interval, [place, place], color=color, linewidth=1.6)
        face = color if entry.policy == OURS else page.CARD
        axes.plot(entry.gain, place, "o", color=color, markerfacecolor=face, markersize=4.5)
    names = [
        page.shortened(f"{entry.method}, {title_of(entry.policy)}", 34)
        for entry in reversed(entries)
    ]
    axes.set_yticks(range(len(entries)), names, fontsize=8)
    axes.set_ylim(-0.7, len(entries) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=page.LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("points against the control")
    return figure


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
    text = (
        "Regret: points missing to the better of source and control. Below: cells more than a "
        "point below it. Harm averted: harm cells that end within a point of it. Detected in time: "
        "harm cells with an alarm before the running loss exceeds 5 points. False resets: other "
        "cells with any reset. Kept gain: guarded over unguarded gain, where there is one. "
        "Normalisation regret: of the statistics chosen without labels. Cost: the guard's time "
        "over that of all else."
    )
    tables = {"policy": policies_of(summary), **titled_groups(summary)}
    parts = [page.paragraph(text)]
    for title, named in tables.items():
        head, *lines = as_lines(named, title)
        parts.append(page.table(head, lines, marked=[0] if title == "policy" else []))
    return parts


def _regret(rows: Sequence[Row]) -> list[str]:
    def draw() -> Figure:
        figure = regret_against_gain(rows)
        for axes in figure.axes:
            for dots in axes.collections:
                dots.set_rasterized(len(rows) > _DOTS)
        return figure

    text = (
        "A dot a cell. To the right the method alone is worth its while, to the left it harms; "
        "height is what is left under "
        "the guard. A perfect guard keeps the dashed line on the right and zero on the left; red "
        "is more than a point below."
    )
    return [page.figure(draw, text, wide=True)]


def _cells(rows: Sequence[Row]) -> list[str]:
    if not any(row["policy"] == OURS for row in rows):
        return []

    def draw() -> Figure:
        figure = heat_map(rows)
        figure.axes[0].set_facecolor(page.LINE)
        return figure

    losing = sorted((row for row in rows if row["policy"] == OURS), key=regret, reverse=True)[
        :_LISTED
    ]
    head = [
        *("data", "network", "shift", "stream", "method", "batch", "lr"),
        *("seed", "source", "control", "alone", "ours", "against the better"),
    ]
    lines = [
        [
            f"{row['data']} {row['target']}" if row["data"] != row["target"] else row["data"],
            row["network"],
            f"{row['shift']} {row['severity'] or ''}",
            *(
                row["stream"],
                row["method"],
                row["batch_size"],
                None if row["lr"] is None else f"{row['lr']:g}",
                row["seed"],
            ),
            *(float(row[name]) for name in ("source", "control", "unguarded", "guarded")),
            page.signed(-regret(row)),
        ]
        for row in losing
    ]
    return [
        page.figure(
            draw, "Under our guard: points against the better of source and control.", wide=True
        ),
        page.heading("Where our guard does worst"),
        page.table(head, lines, texts=5),
    ]
