"""The figures of a run's report; each is drawn within ``page.figure``, whose colours it uses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from holdfast.callbacks.report.page import (
    ADAPTED,
    CARD,
    COLORS,
    CONTROL,
    INK,
    LINE,
    SERVED,
    SOFT,
    SOURCE,
    shortened,
)
from holdfast.callbacks.trajectory import (
    over_batches,
    running_balanced_accuracy,
    running_marginals,
)

Rows = Sequence[Mapping[str, Any]]
Numbers = npt.NDArray[np.float64]

#: Images that a bin of confidence needs to be drawn.
LEAST = 10
#: Points of a curve, and cells of a strip, at most.
_POINTS = 600
_TICKS = 7  # of an axis of batches, at most
_MARKS = 60  # events of a kind that are marked in a curve, at most
#: Inches: about as wide as a phone shows, so that its text stays legible there.
WIDTH = 4.8


def thinned(values: Numbers, pick: np.ufunc | None) -> tuple[Numbers, Numbers]:
    """A long row of values in at most ``_POINTS`` bins.

    Args:
        values: (N,), NaN where there is none.
        pick: what stands for a bin: ``np.fmin``, say, where low values matter; None: its last
            value.

    Returns:
        Place of each bin's centre (M,), counted from 0, and its value (M,).
    """
    edges = np.unique(np.linspace(0, len(values), min(len(values), _POINTS) + 1).astype(int))
    starts, ends = edges[:-1], edges[1:]
    return (starts + ends - 1) / 2, values[ends - 1] if pick is None else pick.reduceat(
        values, starts
    )


def column(rows: Rows, name: str) -> Numbers:
    """(N,) numbers of a trace; NaN where nothing was measured."""
    return np.array([np.nan if row.get(name) is None else float(row[name]) for row in rows])


def measures(
    rows: Rows, events: Rows, panels: Sequence[tuple[str, Numbers, float | None, str]]
) -> Figure:
    """Curves below each other over the batches.

    Args:
        rows: the trace.
        events: what happened; corrections and choices of statistics are marked.
        panels: name, values (N,), a level to mark or None, and which extreme matters: low or high.
    """
    figure = Figure(figsize=(WIDTH, 0.5 + 1.35 * len(panels)), layout="constrained")
    for axes, (name, values, level, matters) in zip(
        _stacked(figure, len(panels)), panels, strict=True
    ):
        centers, shown = thinned(values, np.fmin if matters == "low" else np.fmax)
        known = ~np.isnan(shown)
        axes.plot(
            centers[known], shown[known], color=SERVED, linewidth=1.2, marker=".", markersize=3
        )
        if level is not None:
            axes.axhline(level, color=ADAPTED, linestyle="--", linewidth=1)
        axes.set_ylabel(name)
        if matters == "high":
            axes.set_ylim(bottom=min(0.0, float(np.nanmin(shown, initial=0))))
        _mark(axes, events)
    batch_axis(figure.axes[-1], len(rows))
    return figure


def accuracy(
    curves: Mapping[str, Tensor], labels: Tensor, num_classes: int, batches: int, events: Rows
) -> Figure:
    """Running balanced accuracy of several models over the stream.

    Args:
        curves: predictions (N,) by the model's name, source, control, adapted or served.
        labels: (N,) true classes.
        num_classes: C.
        batches: of the stream.
        events: to mark.
    """
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    styles = {
        "source": (SOURCE, "-."),
        "control": (CONTROL, "--"),
        "adapted": (ADAPTED, ":"),
        "served": (SERVED, "-"),
    }
    for name, predictions in curves.items():
        centers, values = running_balanced_accuracy(predictions, labels, num_classes, windows=60)
        color, line = styles[name]
        # What was served is broad and lies lowest: whom it follows is seen on top of it.
        width, height = (3.2, 2.0) if name == "served" else (1.4, 2.5)
        places = over_batches(centers, len(labels), batches)
        axes.plot(places, values, line, color=color, label=name, linewidth=width, zorder=height)
        if len(values) == 1:
            axes.plot(places, values, "o", color=color, markersize=4)
    axes.set_ylabel("running balanced accuracy (%)")
    batch_axis(axes, batches)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=4)
    _mark(axes, events)
    return figure


def marginals(
    panels: Mapping[str, Tensor], colors: Mapping[int, str], num_classes: int, batches: int
) -> Figure:
    """Shares of the classes over the stream, as stacked areas.

    Args:
        panels: classes (N,) by name, -1 where unknown.
        colors: of each class that is shown by itself; the others come last, in grey.
        num_classes: C.
        batches: of the stream.
    """
    figure = Figure(figsize=(WIDTH, 0.5 + 1.15 * len(panels)), layout="constrained")
    for axes, (name, classes) in zip(_stacked(figure, len(panels)), panels.items(), strict=True):
        known = torch.nonzero(classes >= 0).squeeze(1)
        centers, shares = running_marginals(classes[known], num_classes)
        if len(centers) == 1:
            centers, shares = np.array([0.0, len(known) - 1.0]), np.repeat(shares, 2, 0)
        images = known.numpy()[centers.astype(int).clip(max=len(known) - 1)] + 0.5
        places = over_batches(images, len(classes), batches)
        alone = [shares[:, label] for label in colors]
        rest = 1 - np.sum(alone, axis=0)
        areas = [*alone, rest] if num_classes > len(colors) else alone
        axes.stackplot(places, areas, colors=[*colors.values(), SOURCE][: len(areas)], linewidth=0)
        axes.set_title(name, loc="left")
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 1], ["0", "1"])
    batch_axis(figure.axes[-1], batches)
    return figure


def confusion(counts: Tensor, class_names: Sequence[str]) -> Figure:
    """Where each true class went, in percent of it.

    Args:
        counts: (C, C) images, true classes in rows.
        class_names: names of the C classes.
    """
    classes, named = len(class_names), len(class_names) <= 12
    shares = (100 * counts.double() / counts.sum(1, keepdim=True)).numpy()
    side = 3.5 if named else 4.2
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    clear = LinearSegmentedColormap.from_list(
        "share", [(*to_rgb(SERVED), 0.0), (*to_rgb(SERVED), 0.75)]
    )
    axes.imshow(shares, cmap=clear, vmin=0, vmax=100, interpolation="nearest")
    if named:
        names = [shortened(name, 14) for name in class_names]
        axes.set_xticks(
            range(classes),
            names,
            rotation=0 if classes <= 3 else 45,
            ha="center" if classes <= 3 else "right",
        )
        axes.set_yticks(range(classes), names, rotation=90 if classes <= 3 else 0, va="center")
        for (true, said), share in np.ndenumerate(shares):
            if np.isfinite(share):
                axes.text(
                    said,
                    true,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    color=INK,
                    fontsize=9 if classes <= 8 else 7,
                )
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for side_ in axes.spines.values():
        side_.set_visible(True)
        side_.set_color(LINE)
    return figure


def reliability(
    models: Mapping[str, tuple[Tensor, Tensor]], unit: str = "image", bins: int = 10
) -> Figure:
    """Accuracy against confidence, and how many images have which confidence.

    Args:
        models: confidences (N,) and whether each prediction is right (N,), by the model's name.
        unit: what N counts.
        bins: of confidence, equally wide.
    """
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
    colors = {"source": SOURCE, "control": CONTROL, "served": SERVED}
    width = 1 / bins / (len(models) + 1)
    for place, (name, (confidences, right)) in enumerate(models.items()):
        code = (confidences * bins).long().clamp(0, bins - 1)
        count = torch.bincount(code, minlength=bins)
        sure, hit = (torch.bincount(code, v.double(), bins) / count for v in (confidences, right))
        some = count >= LEAST
        upper.plot(
            sure[some].numpy(),
            hit[some].numpy(),
            "o-",
            color=colors[name],
            label=name,
            markersize=4,
            linewidth=1.4,
        )
        edges = (torch.arange(bins) + 0.5) / bins + (place - (len(models) - 1) / 2) * width
        lower.bar(
            edges.numpy(),
            (100 * count / count.sum()).numpy(),
            width,
            color=colors[name],
            linewidth=0,
        )
    upper.set_ylabel("accuracy")
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    lower.set_ylabel(f"% of {unit}s")
    lower.set_xlabel("confidence")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def class_colors(counts: Tensor) -> dict[int, str]:
    """Colours of the classes, or of the most frequent ones where there are more than colours; by
    class, in their order.
    """
    if len(counts) <= len(COLORS):
        return dict(enumerate(COLORS[: len(counts)]))
    frequent = sorted(counts.argsort(descending=True, stable=True)[: len(COLORS)].tolist())
    return dict(zip(frequent, COLORS, strict=True))


def _stacked(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def batch_axis(axes: Axes, count: int) -> None:
    """The axis that all figures of the stream share, so that they can be held against each
    other.
    """
    axes.set_xlabel("batch")
    axes.set_xlim(-0.5, max(count - 0.5, 0.5))
    if count < _TICKS:  # of so few the locator would name halves
        axes.set_xticks(range(count))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=_TICKS, integer=True))


def _mark(axes: Axes, events: Rows) -> None:
    """Lines at corrections, and fainter ones where the mode changed; none where they would
    hide the curve.
    """
    for kind, style in (("correction", "-"), ("mode", ":")):
        batches = [event["batch"] for event in events if event["event"] == kind]
        for batch in batches if len(batches) <= _MARKS else ():
            axes.axvline(
                batch,
                color=ADAPTED if kind == "correction" else SOFT,
                linewidth=0.9,
                linestyle=style,
            )
    axes.set_facecolor(CARD)
