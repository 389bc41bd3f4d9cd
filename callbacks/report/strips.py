"""The guard over a stream, as strips: who served, verdicts, modes and statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from holdfast.callbacks.report.figures import WIDTH, Numbers, Rows, batch_axis, thinned
from holdfast.callbacks.report.page import CONTROL, INK, SERVED, SOURCE
from holdfast.tta.step import Mode, ServedBy, VerdictState
from holdfast.tta.style import AMBER, GREEN, RED, SKY, VIOLET

_LETTER = 0.022  # of a strip's length that a letter takes
_STATES: Mapping[VerdictState, str] = {"OK": GREEN, "WATCH": AMBER, "ALARM": RED, "FROZEN": VIOLET}
#: The guard's modes: the same colour where it is the same as a verdict or a network.
_MODES: Mapping[Mode, str] = {
    "adapting": SERVED,
    "hedging": VIOLET,
    "holding": SOURCE,
    "resting": CONTROL,
    "frozen": RED,
}
#: Statistics, and who served: the same colour where it is the same network.
_SERVING: Mapping[ServedBy, str] = {
    "source": SOURCE,
    "batch": CONTROL,
    "control": CONTROL,
    "corrected": SKY,
    "mixture": VIOLET,
    "adapted": SERVED,
}


def timeline(rows: Rows, events: Rows) -> Figure:
    """Who served, verdicts, modes and statistics in use, as strips, with the corrections."""
    strips: list[tuple[str, str, Mapping[Any, str]]] = [
        ("served by", "served_by", _SERVING),  # what most people ask first
        ("verdict", "verdict", _STATES),
        ("mode", "mode", _MODES),
        ("statistics", "choice", _SERVING),
    ]
    strips = [strip for strip in strips if any(row.get(strip[1]) for row in rows)]
    corrections = [event for event in events if event["event"] == "correction"]
    figure = Figure(
        figsize=(WIDTH, 1.0 + 0.36 * (len(strips) + bool(corrections))), layout="constrained"
    )
    axes = figure.subplots()
    unnamed: dict[str, str] = {}
    for height, (_, key, colors) in enumerate(reversed(strips)):
        unnamed |= _strip(axes, height, rows, key, colors)
    top = len(strips)
    if corrections:
        axes.plot(
            [e["batch"] for e in corrections],
            [top] * len(corrections),
            "v",
            color=INK,
            markersize=5,
            linestyle="none",
        )
    axes.set_yticks(
        range(top + bool(corrections)),
        [name for name, _, _ in reversed(strips)] + ["correction"] * bool(corrections),
    )
    axes.set_ylim(-0.5, top - 0.4 + bool(corrections))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    batch_axis(axes, len(rows))
    if unnamed:
        by_color: dict[str, list[str]] = {}
        for name, color in unnamed.items():
            by_color.setdefault(color, []).append(name)
        handles = [Patch(color=color, label=", ".join(of)) for color, of in by_color.items()]
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=min(len(handles), 4),
            handlelength=0.9,
            columnspacing=1,
        )
    return figure


def _strip(
    axes: Axes, height: int, rows: Rows, key: str, colors: Mapping[str, str]
) -> dict[str, str]:
    """Draw one strip, with each name written into its longest stretch.

    Returns:
        Colours of the names that no stretch had room for.
    """
    # In a bin of several batches the gravest verdict counts, else the latest name.
    names = list(colors)
    codes = np.array([names.index(row[key]) if row.get(key) in colors else -1.0 for row in rows])
    centers, shown = thinned(codes, np.maximum if key == "verdict" else None)
    width, unnamed = len(rows) / len(centers), {}
    for code in np.unique(shown[shown >= 0]).astype(int):
        name, color = names[code], colors[names[code]]
        spans = [
            (first - width / 2, last - first + width)
            for first, last in _stretches(centers, shown == code)
        ]
        axes.broken_barh(spans, (height - 0.36, 0.72), facecolors=color, linewidth=0)
        start, length = max(spans, key=lambda span: span[1])
        told = "control" if (key, name) == ("served_by", "batch") else name
        if length / len(rows) > _LETTER * len(told):
            middle = (start + length / 2, height)
            axes.annotate(told, middle, ha="center", va="center", fontsize=8, color=_on(color))
        else:
            unnamed[told] = color
    return unnamed


def _on(color: str) -> str:
    """Black or white, whichever is read better on a colour; the same in dark mode."""
    red, green, blue = to_rgb(color)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def _stretches(centers: Numbers, member: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """First and last centre of each stretch of members."""
    padded = np.diff(np.concatenate([[0], member.astype(int), [0]]))
    firsts, lasts = np.flatnonzero(padded == 1), np.flatnonzero(padded == -1) - 1
    return list(zip(centers[firsts].tolist(), centers[lasts].tolist(), strict=True))
