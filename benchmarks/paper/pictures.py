"""The study's pictures: bias before and after, accuracy against bias, the mirror failure, batch
sizes.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from matplotlib.figure import Figure

from holdfast.benchmarks.orders import BALANCED
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.paper.page import stream_title, target_title
from holdfast.benchmarks.paper.plan import REFERENCES
from holdfast.benchmarks.paper.summary import against_control, at, methods_in, spread, title_of
from holdfast.benchmarks.tables import Row
from holdfast.tta.style import GREY, PALETTE, styled

#: Below this a difference in bias is not to be seen.
_LINEAR = 0.01
_TICKS = (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)


@styled
def draw(rows: Sequence[Row], config: PaperConfig) -> dict[str, Figure]:
    """The pictures, by name; those that the rows have nothing for are left out."""
    shifted = [row for shift in config.shifts for row in at(rows, config, shift=shift)]
    longest = at(rows, config, images=max(config.lengths))
    skewed = [row for row in longest if row["stream"] != BALANCED]
    batches = [row for size in config.batch_sizes for row in at(rows, config, batch_size=size)]
    narrow = {target_title(row) for row in batches if row["batch_size"] != config.batch_sizes[0]}
    batches = [row for row in batches if target_title(row) in narrow]
    pictures = {
        "bias": bias(shifted, config) if shifted else None,
        "accuracy": accuracy(shifted, config) if shifted else None,
        "mirror": mirror(skewed, config) if skewed else None,
        "batch": batch_sizes(batches, config) if batches else None,
    }
    return {name: figure for name, figure in pictures.items() if figure is not None}


def bias(rows: Sequence[Row], config: PaperConfig) -> Figure:
    """A panel a stream, a line a target through source, control and methods: β in the last quarter,
    mean over seeds.
    """
    methods, targets = methods_in(rows), list(dict.fromkeys(map(target_title, rows)))
    figure, panels = _panels(1, len(config.streams), width=5.2, height=4.2)
    for axes, stream in zip(panels, config.streams, strict=True):
        for number, target in enumerate(targets):
            own = [row for row in rows if row["stream"] == stream and target_title(row) == target]
            values = [_mean(own, method, "beta_last") for method in methods]
            colour, mark = PALETTE[number % len(PALETTE)], "o" if "," not in target else "s"
            axes.plot(
                range(len(methods)),
                values,
                marker=mark,
                markersize=4,
                linewidth=0.8,
                color=colour,
                label=target,
            )
        axes.set_xticks(
            range(len(methods)),
            [title_of(m).replace("_", " ") for m in methods],
            rotation=60,
            ha="right",
            fontsize=8,
        )
        axes.set_yscale("symlog", linthresh=_LINEAR)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        axes.set_title(stream_title(stream), fontsize=10)
    panels[0].set_ylabel("β, last quarter")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
    return figure


def accuracy(rows: Sequence[Row], config: PaperConfig) -> Figure:
    """A panel a stream, a dot a run: what an update does to bias and to balanced accuracy, against
    the control.
    """
    changes = [row for row in against_control(rows) if row["method"] in config.methods]
    figure, panels = _panels(1, len(config.streams), width=4.6, height=3.8)
    for axes, stream in zip(panels, config.streams, strict=True):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for number, method in enumerate(config.methods):
            own = [row for row in changes if row["stream"] == stream and row["method"] == method]
            shown = [
                row for row in own if row["beta_last"] is not None and isfinite(row["beta_last"])
            ]
            points = (
                [row["beta_last"] for row in shown],
                [row["balanced_accuracy_last"] for row in shown],
            )
            colour = PALETTE[number % len(PALETTE)]
            axes.scatter(
                *points,
                s=16,
                alpha=0.75,
                linewidths=0,
                color=colour,
                label=method.replace("_", " "),
            )
        axes.set_xscale("symlog", linthresh=_LINEAR)
        ends = [min(axes.get_xlim()[0], -2 * _LINEAR), max(axes.get_xlim()[1], 2 * _LINEAR)]
        axes.set_xticks([tick for tick in _TICKS if ends[0] <= tick <= ends[1]], minor=False)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(*ends)
        axes.set_title(stream_title(stream), fontsize=10)
        axes.set_xlabel("β minus the control's, last quarter", fontsize=9)
    panels[0].set_ylabel("balanced accuracy minus the control's (points)", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=7,
        fontsize=8,
        frameon=False,
    )
    return figure


def mirror(rows: Sequence[Row], config: PaperConfig) -> Figure:
    """Skewed streams at their longest: balanced accuracy and β of the last quarter, by target; thin
    lines: range of seeds.
    """
    methods = [m for m in (*REFERENCES, *config.close) if m in methods_in(rows)]
    targets = list(dict.fromkeys(map(target_title, rows)))
    figure, panels = _panels(2, 1, width=3.6 + 1.2 * len(targets), height=2.5)
    titles = {
        "balanced_accuracy_last": "balanced accuracy,\nlast quarter (%)",
        "beta_last": "β, last quarter",
    }
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for number, method in enumerate(methods):
            own = [
                [row for row in rows if row["method"] == method and target_title(row) == target]
                for target in targets
            ]
            heights = [_mean(part, method, measure) for part in own]
            places = [
                place + (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
                for place in range(len(targets))
            ]
            colour = _colour(method, number)
            axes.bar(
                places,
                heights,
                0.72 / len(methods),
                color=colour,
                label=title_of(method).replace("_", " "),
            )
            for place, part in zip(places, own, strict=True):
                values = [row[measure] for row in part if row[measure] is not None]
                if len(values) > 1:
                    axes.plot(
                        [place, place], [min(values), max(values)], color="black", linewidth=0.9
                    )
        axes.set_ylabel(title, fontsize=9)
        axes.set_xticks(range(len(targets)), targets, fontsize=8)
    panels[0].set_title(
        f"{max(row['images'] for row in rows)} images, one class too frequent", fontsize=10
    )
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    return figure


def batch_sizes(rows: Sequence[Row], config: PaperConfig) -> Figure:
    """A panel a target and stream: balanced accuracy of the last quarter against the batch size;
    bands: seeds' range.
    """
    methods = [m for m in (*REFERENCES, *config.close) if m in methods_in(rows)]
    points = list(dict.fromkeys((target_title(row), row["stream"]) for row in rows))
    figure, panels = _panels(1, len(points), width=3.1, height=3.2, same=True)
    for axes, (target, stream) in zip(panels, points, strict=True):
        here = [row for row in rows if (target_title(row), row["stream"]) == (target, stream)]
        sizes = sorted({row["batch_size"] for row in here})
        for number, method in enumerate(methods):
            own = [
                [row for row in here if row["method"] == method and row["batch_size"] == size]
                for size in sizes
            ]
            known = [(size, part) for size, part in zip(sizes, own, strict=True) if part]
            means = [_mean(part, method, "balanced_accuracy_last") for _, part in known]
            colour, label = _colour(method, number), title_of(method).replace("_", " ")
            axes.plot(
                [size for size, _ in known],
                means,
                marker="o",
                markersize=3.5,
                linewidth=1.2,
                color=colour,
                label=label,
            )
            ends = [
                [end(row["balanced_accuracy_last"] for row in part) for _, part in known]
                for end in (min, max)
            ]
            axes.fill_between(
                [size for size, _ in known], *ends, color=colour, alpha=0.12, linewidth=0
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.set_title(f"{target},\n{stream_title(stream)}", fontsize=9)
        axes.set_xlabel("images a batch", fontsize=9)
    panels[0].set_ylabel("balanced accuracy,\nlast quarter (%)", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    return figure


def _panels(
    lines: int, columns: int, *, width: float, height: float, same: bool = False
) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(0.6 + width * columns, 0.9 + height * lines), layout="constrained")
    return figure, list(figure.subplots(lines, columns, squeeze=False, sharey=same).flat)


def _mean(rows: Sequence[Row], method: str, measure: str) -> float:
    found = spread([row for row in rows if row["method"] == method], measure)
    return float("nan") if found is None or not isfinite(found.mean) else found.mean


def _colour(method: str, number: int) -> str:
    fixed: Mapping[str, str] = {"source": "#c3c8cf", "norm": GREY}
    return fixed.get(method, PALETTE[(number - len(fixed)) % len(PALETTE)])
