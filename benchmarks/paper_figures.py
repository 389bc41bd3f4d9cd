"""The pictures of evidence/paper.md: bias before and after, accuracy against bias, and what longer
streams and other batch sizes come to. All are of the last quarters of streams.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from holdfast.benchmarks.pages import grouped, method_title, over_seeds, stream_title, target_title
from holdfast.benchmarks.tables import Row
from holdfast.tta.style import GREY, PALETTE, styled

_FIXED: Mapping[str, str] = {"source": "#c3c8cf", "norm": GREY}
#: Below this a difference in bias is not to be seen.
_LINEAR = 0.01
_TICKS = (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)
_ACCURACY = "balanced_accuracy_last"


@styled
def bias(rows: Sequence[Row]) -> Figure:
    """A panel a stream, a line a target through source, control and methods: β, mean over seeds."""
    methods = list(grouped(rows, _method))

    def draw(axes: Axes, own: list[Row]) -> None:
        for number, (target, part) in enumerate(grouped(own, target_title).items()):
            found = grouped(part, _method)
            values = [_mean(found.get(method, []), "beta_last") for method in methods]
            style: dict[str, Any] = {
                "marker": "s" if "," in target else "o",
                "markersize": 4,
                "linewidth": 0.8,
            }
            axes.plot(values, color=PALETTE[number % len(PALETTE)], label=target, **style)
        names = [_label(method) for method in methods]
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_yscale("symlog", linthresh=_LINEAR)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)

    return _panels(rows, lambda row: stream_title(row["stream"]), draw, "β, last quarter", 5.2)


@styled
def accuracy(rows: Sequence[Row]) -> Figure:
    """A panel a stream, a dot a run: what an update does to bias and to balanced accuracy.

    Args:
        rows: against the control.
    """

    def draw(axes: Axes, own: list[Row]) -> None:
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        finite = [row for row in own if isfinite(row["beta_last"] or 0.0)]
        for number, (method, part) in enumerate(grouped(finite, _method).items()):
            points = [[row[name] for row in part] for name in ("beta_last", _ACCURACY)]
            style: dict[str, Any] = {"s": 16, "alpha": 0.75, "linewidths": 0}
            color = PALETTE[number % len(PALETTE)]
            axes.scatter(*points, color=color, label=_label(method), **style)
        axes.set_xscale("symlog", linthresh=_LINEAR)
        axes.xaxis.set_major_locator(FixedLocator(_TICKS))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("β minus the control's, last quarter", fontsize=9)

    title = "balanced accuracy minus the control's (points)"
    return _panels(rows, lambda row: stream_title(row["stream"]), draw, title, 4.6)


@styled
def along(rows: Sequence[Row], axis: str) -> Figure:
    """A panel a target and stream: balanced accuracy against the batch size, or the length of the
    stream; bands: seeds' range.

    Args:
        rows: of every value.
        axis: batch_size or images.
    """
    methods = list(grouped(rows, _method))

    def draw(axes: Axes, own: list[Row]) -> None:
        for method, part in grouped(own, _method).items():
            points = sorted(grouped(part, lambda row: row[axis]).items())
            values = [value for value, _ in points]
            colour = _colour(method, methods.index(method))
            means = [_mean(found, _ACCURACY) for _, found in points]
            style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.2}
            axes.plot(values, means, color=colour, label=_label(method), **style)
            lows, highs = (
                [end(row[_ACCURACY] for row in found) for _, found in points] for end in (min, max)
            )
            axes.fill_between(values, lows, highs, alpha=0.12, color=colour, linewidth=0)
        axes.set_xscale("log", base=2)
        shown = sorted({row[axis] for row in own})
        axes.set_xticks(shown, list(map(str, shown)))
        axes.set_xlabel({"batch_size": "images a batch"}.get(axis, axis), fontsize=9)

    title = "balanced accuracy,\nlast quarter (%)"
    return _panels(rows, _place, draw, title, 3.1)


def _panels(
    rows: Sequence[Row],
    key: Callable[[Row], str],
    draw: Callable[[Axes, list[Row]], None],
    title: str,
    width: float,
) -> Figure:
    """A panel a key, and below them what the first one shows, named."""
    parts = grouped(rows, key)
    figure = Figure(figsize=(0.6 + width * len(parts), 4.6), layout="constrained")
    panels = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for axes, (name, own) in zip(panels, parts.items(), strict=True):
        draw(axes, own)
        axes.set_title(name, fontsize=9)
    panels[0].set_ylabel(title, fontsize=9)
    style: dict[str, Any] = {"ncols": 5, "fontsize": 8}
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", **style)
    return figure


def _place(row: Row) -> str:
    return f"{target_title(row)},\n{stream_title(row['stream'])}"


def _method(row: Row) -> str:
    return str(row["method"])


def _mean(rows: Sequence[Row], measure: str) -> float:
    found = over_seeds(rows, measure)
    return float("nan") if found is None or not isfinite(found.mean) else found.mean


def _label(method: str) -> str:
    return method_title(method).replace("_", " ")


def _colour(method: str, number: int) -> str:
    return _FIXED.get(method, PALETTE[(number - len(_FIXED)) % len(PALETTE)])
