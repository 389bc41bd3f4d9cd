"""The critical-difference diagram of Demšar (JMLR 7, 2006): mean ranks, and who does not differ."""

from math import ceil

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from holdfast.comparing.found import Comparison, Entry
from holdfast.comparing.paired import alike
from holdfast.tta.errors import InputError
from holdfast.tta.style import BLUE, COLUMN, PAGE, PRINT, SMALLEST

#: Letters of a name, and entries, that a column's width takes.
_LETTERS, _ENTRIES = 12, 10
#: Height in inches of a line of names, of a bar, and of what lies above the axis.
_LINE, _BAR, _TOP = 0.17, 0.07, 0.34
#: Inches of a name's letter.
_LETTER = 0.065


@matplotlib.rc_context(dict(PRINT))
def critical_difference_diagram(found: Comparison) -> Figure:
    """Mean ranks on a line, the best to the left; a bar joins those that do not differ.

    Args:
        found: of three entries or more, over enough pairs.

    Raises:
        InputError: there was no such test.
    """
    if found.critical is None:
        raise InputError(
            "a critical difference needs three entries over six pairs or more: add methods, seeds "
            "or streams"
        )
    entries = found.entries
    longest = max(len(entry.name) for entry in entries)
    width = COLUMN if longest <= _LETTERS and len(entries) <= _ENTRIES else PAGE
    bars = alike([entry.rank for entry in entries], found.critical)
    lines = ceil(len(entries) / 2)
    below = _BAR * (len(bars) + 1)  # room for the bars between the axis and the names
    height = _TOP + below + _LINE * (lines + 0.5)
    figure = Figure(figsize=(width, height))
    side = min(0.4, (longest + 1) * _LETTER / width)
    axes = figure.add_axes((side, 0.0, 1 - 2 * side, 1.0))
    axes.set_xlim(1, len(entries))
    axes.set_ylim(-(height - _TOP), _TOP)  # inches from the axis of ranks
    axes.axis("off")
    _scale(axes, len(entries))
    _spread(axes, found.critical)
    for place, (first, last) in enumerate(bars):
        level = -_BAR * (place + 1)
        ends = (entries[first].rank - 0.03, entries[last].rank + 0.03)
        axes.plot(ends, (level, level), color=BLUE, linewidth=2.4, solid_capstyle="butt")
    for place, entry in enumerate(entries):
        left = place < lines
        line = place if left else len(entries) - 1 - place
        _name(axes, entry, 1 if left else len(entries), -below - _LINE * (line + 0.5), left)
    return figure


def _scale(axes: Axes, count: int) -> None:
    """The axis of ranks."""
    axes.plot((1, count), (0, 0), color="black", linewidth=0.8, clip_on=False)
    for rank in range(1, count + 1):
        axes.plot((rank, rank), (0, 0.04), color="black", linewidth=0.8, clip_on=False)
        axes.text(rank, 0.05, str(rank), ha="center", va="bottom", fontsize=SMALLEST)


def _spread(axes: Axes, difference: float) -> None:
    """How far apart two ranks have to be, above the axis."""
    high = _TOP - 0.06
    low, top = axes.get_xlim()
    end = min(1 + difference, top)
    axes.plot((1, end), (high, high), color="black", linewidth=0.8, clip_on=False)
    for at in (1, end) if end < top else (1,):
        axes.plot((at, at), (high - 0.03, high + 0.03), color="black", linewidth=0.8, clip_on=False)
    shown = f"CD = {difference:.2f}"
    axes.text(end + 0.015 * (top - low), high, shown, ha="left", va="center", fontsize=SMALLEST)


def _name(axes: Axes, entry: Entry, edge: float, level: float, left: bool) -> None:
    """A line from a rank down and out to its name."""
    corner = (entry.rank, entry.rank, edge), (0, level, level)
    axes.plot(*corner, color="black", linewidth=0.6, clip_on=False)
    axes.annotate(
        entry.name,
        (edge, level),
        (-3 if left else 3, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=SMALLEST,
        annotation_clip=False,
    )
