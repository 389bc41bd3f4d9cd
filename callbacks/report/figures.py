"""The figures of a run's report; each is drawn within ``page.figure``, whose colours it uses."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from holdfast.callbacks.report.observe import Window
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
from holdfast.tta.style import AMBER, GREEN, RED, SKY, VIOLET

Rows = Sequence[Mapping[str, Any]]
Numbers = npt.NDArray[np.float64]

#: Images that a bin of confidence needs to be drawn.
LEAST = 10
#: Points of a curve, and cells of a strip, at most.
_POINTS = 600
_TICKS = 7  # of an axis of batches, at most
_MARKS = 60  # events of a kind that are marked in a curve, at most
_LETTER = 0.022  # of a strip's length that a letter takes
_WIDTH = 4.8  # inches: about as wide as a phone shows, so that its text stays legible there
_STATES = {"OK": GREEN, "WATCH": AMBER, "ALARM": RED, "FROZEN": VIOLET}
#: The guard's modes: the same colour where it is the same as a verdict or a network.
_MODES = {
    "adapting": SERVED,
    "hedging": VIOLET,
    "holding": SOURCE,
    "resting": CONTROL,
    "frozen": RED,
}
#: Statistics, and who served: the same colour where it is the same network.
_SERVING = {
    "source": SOURCE,
    "batch": CONTROL,
    "control": CONTROL,
    "corrected": SKY,
    "mixture": VIOLET,
    "adapted": SERVED,
}


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


def timeline(rows: Rows, events: Rows) -> Figure:
    """Who served, verdicts, modes and statistics in use, as strips, with the corrections."""
    strips = [
        ("served by", "served_by", _SERVING),  # what most people ask first
        ("verdict", "verdict", _STATES),
        ("mode", "mode", _MODES),
        ("statistics", "choice", _SERVING),
    ]
    strips = [strip for strip in strips if any(row.get(strip[1]) for row in rows)]
    corrections = [event for event in events if event["event"] == "correction"]
    figure = Figure(
        figsize=(_WIDTH, 1.0 + 0.36 * (len(strips) + bool(corrections))), layout="constrained"
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
    _over_batches(axes, len(rows))
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
    red, green, blue = _rgb(color)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def measures(
    rows: Rows, events: Rows, panels: Sequence[tuple[str, Numbers, float | None, str]]
) -> Figure:
    """Curves below each other over the batches.

    Args:
        rows: the trace.
        events: what happened; corrections and choices of statistics are marked.
        panels: name, values (N,), a level to mark or None, and which extreme matters: low or high.
    """
    figure = Figure(figsize=(_WIDTH, 0.5 + 1.35 * len(panels)), layout="constrained")
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
    _over_batches(figure.axes[-1], len(rows))
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
    figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
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
    _over_batches(axes, batches)
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
    figure = Figure(figsize=(_WIDTH, 0.5 + 1.15 * len(panels)), layout="constrained")
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
    _over_batches(figure.axes[-1], batches)
    return figure


def source_axes(mean: Tensor, var: Tensor, prevalence: Tensor) -> tuple[Tensor, Tensor]:
    """The plane in which the source's features vary most, from what its checkpoint says of them.

    Args:
        mean: (C, D) class means.
        var: (C, D) variances within classes.
        prevalence: (C,) share of each class; those without an image are left out.

    Returns:
        Centre (D,) and two orthonormal axes (D, 2): the principal components of the between-class
        scatter plus the diagonal of the scatter within classes.
    """
    known = prevalence > 0
    share = (prevalence[known] / prevalence[known].sum()).double()
    means = mean[known].double()
    center = share @ means
    spread = (means - center) * share.sqrt()[:, None]
    covariance = spread.T @ spread + (share @ var[known].double()).diag()
    _, vectors = torch.linalg.eigh(covariance)
    axes = vectors[:, -2:].flip(1)
    signs = axes.gather(
        0, axes.abs().argmax(0, keepdim=True)
    ).sign()  # which is else a matter of the machine
    return center.float(), (axes * signs).float()


def projections(
    windows: Sequence[Window],
    means: Tensor,
    plane: tuple[Tensor, Tensor],
    colors: Mapping[int, str],
    by_label: bool,
) -> list[Callable[[], Figure]]:
    """A figure a window: its features in the source's plane, all on one scale, with the source's
    class means.

    Args:
        windows: features.
        means: (C, D) of the source's classes; NaN for those it has not got.
        plane: from ``source_axes``.
        colors: of each class that is shown by itself.
        by_label: colour images by their true class, where there is one; else by the predicted one.
    """
    center, axes = plane
    flat = [((window.features - center) @ axes).numpy() for window in windows]
    fixed = ((means - center) @ axes).numpy()
    everything = np.concatenate([*flat, fixed])
    everything = everything[np.isfinite(everything).all(1)]
    low, high = (
        np.percentile(everything, [0.5, 99.5], axis=0)
        if len(everything)
        else (np.zeros(2), np.ones(2))
    )
    seen = fixed[np.isfinite(fixed).all(1)]
    low, high = (
        np.minimum(low, seen.min(0, initial=np.inf)),
        np.maximum(high, seen.max(0, initial=-np.inf)),
    )
    margin = 0.06 * (high - low) + 1e-6

    def draw(points: Numbers, classes: Tensor) -> Figure:
        figure = Figure(figsize=(3.5, 3.3), layout="constrained")
        axes_ = figure.subplots()
        for label in torch.unique(classes).tolist():
            rows = (classes == label).numpy()
            axes_.scatter(
                points[rows, 0],
                points[rows, 1],
                s=9,
                color=colors.get(label, SOURCE),
                alpha=0.6,
                linewidths=0,
            )
        for label, color in colors.items():
            axes_.plot(
                *fixed[label],
                "X",
                color=color,
                markeredgecolor=INK,
                markersize=9,
                markeredgewidth=1,
            )
        axes_.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes_.set_ylim(low[1] - margin[1], high[1] + margin[1])
        axes_.set_xticks([])
        axes_.set_yticks([])
        axes_.set_xlabel("first component")
        axes_.set_ylabel("second component")
        return figure

    shown = [w.labels.where(w.labels >= 0, -1) if by_label else w.predictions for w in windows]
    return [partial(draw, points, classes) for points, classes in zip(flat, shown, strict=True)]


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
        "share", [(*_rgb(SERVED), 0.0), (*_rgb(SERVED), 0.75)]
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
    figure = Figure(figsize=(_WIDTH, 3.8), layout="constrained")
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


def _stretches(centers: Numbers, member: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """First and last centre of each stretch of members."""
    padded = np.diff(np.concatenate([[0], member.astype(int), [0]]))
    firsts, lasts = np.flatnonzero(padded == 1), np.flatnonzero(padded == -1) - 1
    return list(zip(centers[firsts].tolist(), centers[lasts].tolist(), strict=True))


def _stacked(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _over_batches(axes: Axes, count: int) -> None:
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


def _rgb(color: str) -> tuple[float, float, float]:
    return tuple(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))  # type: ignore[return-value]
