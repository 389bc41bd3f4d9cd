"""The pictures of docs/paper.md: bias before and after, accuracy against bias, the mirror failure,
batch sizes. All are of the last quarters of streams.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from matplotlib.figure import Figure

from holdfast.benchmarks.pages import methods_in, spread, stream_title, target_title, title_of
from holdfast.benchmarks.tables import Row
from holdfast.tta.style import GREY, PALETTE, styled

_FIXED: Mapping[str, str] = {"source": "#c3c8cf", "norm": GREY}
#: Below this a difference in bias is not to be seen.
_LINEAR = 0.01
_TICKS = (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)


@styled
def bias(rows: Sequence[Row]) -> Figure:
    """A panel a stream, a line a target through source, control and methods: β, mean over seeds."""
    methods, targets, streams = methods_in(rows), _targets(rows), _streams(rows)
    figure, panels = _panels(1, len(streams), width=5.2, height=4.2)
    places = range(len(methods))
    for axes, stream in zip(panels, streams, strict=True):
        for number, target in enumerate(targets):
            own = [row for row in rows if row["stream"] == stream and target_title(row) == target]
            values = [_mean(own, method, "beta_last") for method in methods]
            style = {"marker": "s" if "," in target else "o", "markersize": 4, "linewidth": 0.8}
            axes.plot(places, values, color=PALETTE[number % len(PALETTE)], label=target, **style)
        axes.set_xticks(places, map(_label, methods), rotation=60, ha="right", fontsize=8)
        axes.set_yscale("symlog", linthresh=_LINEAR)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        axes.set_title(stream_title(stream), fontsize=10)
    panels[0].set_ylabel("β, last quarter")
    return _with_legend(figure, columns=3)


@styled
def accuracy(rows: Sequence[Row]) -> Figure:
    """A panel a stream, a dot a run: what an update does to bias and to balanced accuracy.

    Args:
        rows: against the control.
    """
    streams = _streams(rows)
    figure, panels = _panels(1, len(streams), width=4.6, height=3.8)
    for axes, stream in zip(panels, streams, strict=True):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for number, method in enumerate(methods_in(rows)):
            own = [row for row in rows if (row["stream"], row["method"]) == (stream, method)]
            own = [row for row in own if isfinite(row["beta_last"] or 0.0)]
            points = [
                [row[name] for row in own] for name in ("beta_last", "balanced_accuracy_last")
            ]
            style = {"s": 16, "alpha": 0.75, "linewidths": 0, "label": _label(method)}
            axes.scatter(*points, color=PALETTE[number % len(PALETTE)], **style)
        axes.set_xscale("symlog", linthresh=_LINEAR)
        low, high = axes.get_xlim()
        low, high = min(low, -2 * _LINEAR), max(high, 2 * _LINEAR)
        axes.set_xticks([tick for tick in _TICKS if low <= tick <= high], minor=False)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(low, high)
        axes.set_title(stream_title(stream), fontsize=10)
        axes.set_xlabel("β minus the control's, last quarter", fontsize=9)
    panels[0].set_ylabel("balanced accuracy minus the control's (points)", fontsize=9)
    return _with_legend(figure, columns=7)


@styled
def mirror(rows: Sequence[Row]) -> Figure:
    """Skewed streams at their longest: balanced accuracy and β, by target; thin lines: range of
    seeds.
    """
    methods, targets = methods_in(rows), _targets(rows)
    figure, panels = _panels(2, 1, width=3.6 + 1.2 * len(targets), height=2.5)
    titles = {
        "balanced_accuracy_last": "balanced accuracy,\nlast quarter (%)",
        "beta_last": "β, last quarter",
    }
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for number, method in enumerate(methods):
            shift = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
            places = [place + shift for place in range(len(targets))]
            own = [_of(rows, method, target) for target in targets]
            heights = [_mean(part, method, measure) for part in own]
            colour = _colour(method, number)
            axes.bar(places, heights, 0.72 / len(methods), color=colour, label=_label(method))
            for place, part in zip(places, own, strict=True):
                values = [row[measure] for row in part if row[measure] is not None]
                if len(values) > 1:
                    ends = [min(values), max(values)]
                    axes.plot([place, place], ends, color="black", linewidth=0.9)
        axes.set_ylabel(title, fontsize=9)
        axes.set_xticks(range(len(targets)), targets, fontsize=8)
    longest = max(row["images"] for row in rows)
    panels[0].set_title(f"{longest} images, one class too frequent", fontsize=10)
    return _with_legend(figure, columns=5)


@styled
def batch_sizes(rows: Sequence[Row]) -> Figure:
    """A panel a target and stream: balanced accuracy against the batch size; bands: seeds'
    range.
    """
    points = list(dict.fromkeys((target_title(row), row["stream"]) for row in rows))
    figure, panels = _panels(1, len(points), width=3.1, height=3.2, same=True)
    for axes, (target, stream) in zip(panels, points, strict=True):
        here = [row for row in rows if (target_title(row), row["stream"]) == (target, stream)]
        for number, method in enumerate(methods_in(rows)):
            own = _of(here, method, target)
            sizes = sorted({row["batch_size"] for row in own})
            parts = [[row for row in own if row["batch_size"] == size] for size in sizes]
            measure = "balanced_accuracy_last"
            means = [_mean(part, method, measure) for part in parts]
            style = {"color": _colour(method, number), "linewidth": 1.2}
            axes.plot(sizes, means, marker="o", markersize=3.5, label=_label(method), **style)
            ends = [[end(row[measure] for row in part) for part in parts] for end in (min, max)]
            axes.fill_between(sizes, *ends, alpha=0.12, **{**style, "linewidth": 0})
        axes.set_xscale("log", base=2)
        shown = sorted({row["batch_size"] for row in here})
        axes.set_xticks(shown, list(map(str, shown)))
        axes.set_title(f"{target},\n{stream_title(stream)}", fontsize=9)
        axes.set_xlabel("images a batch", fontsize=9)
    panels[0].set_ylabel("balanced accuracy,\nlast quarter (%)", fontsize=9)
    return _with_legend(figure, columns=5)


def _panels(
    lines: int, columns: int, *, width: float, height: float, same: bool = False
) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(0.6 + width * columns, 0.9 + height * lines), layout="constrained")
    return figure, list(figure.subplots(lines, columns, squeeze=False, sharey=same).flat)


def _with_legend(figure: Figure, columns: int) -> Figure:
    """The figure with what its first panel shows named below it."""
    handles = figure.axes[0].get_legend_handles_labels()
    style: dict[str, Any] = {"ncols": columns, "fontsize": 8}
    figure.legend(*handles, loc="outside lower center", **style)
    return figure


def _of(rows: Sequence[Row], method: str, target: str) -> list[Row]:
    return [row for row in rows if row["method"] == method and target_title(row) == target]


def _targets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(map(target_title, rows)))


def _streams(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["stream"] for row in rows))


def _mean(rows: Sequence[Row], method: str, measure: str) -> float:
    found = spread([row for row in rows if row["method"] == method], measure)
    return float("nan") if found is None or not isfinite(found.mean) else found.mean


def _label(method: str) -> str:
    return title_of(method).replace("_", " ")


def _colour(method: str, number: int) -> str:
    return _FIXED.get(method, PALETTE[(number - len(_FIXED)) % len(PALETTE)])
