"""A self-contained HTML page about a few runs over the same stream."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from holdfast.benchmarks.runs import Run
from holdfast.callbacks.report import page
from holdfast.callbacks.trajectory import running_balanced_accuracy, running_marginals
from holdfast.datamodules import ImageSet
from holdfast.tta.style import AMBER, BLUE, GREEN, GREY, RED, VIOLET, styled

#: Of runs: the first is the one that collapses.
_COLORS = (RED, BLUE, GREEN, AMBER, VIOLET)


def write_report(
    title: str,
    lead: str,
    references: Sequence[tuple[str, Run]],
    runs: Sequence[Run],
    class_names: Sequence[str],
    images: Sequence[tuple[str, ImageSet]],
    thresholds: dict[str, float],
) -> str:
    """The page.

    Args:
        title: its heading.
        lead: the sentence below it.
        references: runs that learn nothing (source, control), drawn dashed.
        runs: the runs to compare, each over the same stream.
        class_names: names of the classes.
        images: named image sets to show samples of.
        thresholds: levels to mark in the curves, by trace column: R and drift.
    """
    quarter = {name: run.metrics["last_quarter"] for name, run in references}
    every = [*references, *((run.title, run) for run in runs)]
    head = ["run", "balanced accuracy, %", "last quarter, %", "alarms", "resets"]
    keys = ("balanced_accuracy", "last_quarter", "alarms", "resets")
    table = page.table(head, [[name, *(run.metrics[key] for key in keys)] for name, run in every])
    over_the_stream = page.figure(
        lambda: curves(references, runs, len(class_names), thresholds),
        "Vertical lines: corrections. Dashed: models that learn nothing, and the guard's "
        "thresholds. R compares the "
        "separation of classes with the control's; drift is the total variation between their "
        "predictions.",
        wide=True,
    )
    answers = page.figure(
        lambda: _marginals(references, runs, class_names),
        "Share of each class among the predictions, and among the true labels.",
        wide=True,
    )
    shown = "Three images of each class, as the source's scanner and as the target's shows them."
    sections = [
        ("What happened", [page.items(_story(runs, quarter))]),
        ("Accuracy, separation and drift over the stream", [over_the_stream]),
        ("What each model answered", [answers]),
        ("Sample images", [page.figure(lambda: _samples(images), shown, wide=True)]),
    ]
    return page.page(title, lead, sections, head=[table])


def _story(runs: Sequence[Run], last_quarter: dict[str, float]) -> list[str]:
    """What a reader should take from the runs, a sentence each."""
    lines = []
    best = max(last_quarter, key=lambda name: last_quarter[name])
    for run in runs:
        gap = run.metrics["last_quarter"] - last_quarter[best]
        side = "below" if gap < 0 else "above"
        line = (
            f"{run.title} ends {abs(gap):.1f} points {side} the {best} in the last quarter of "
            "the stream."
        )
        for event in run.events:
            if event["event"] == "verdict" and event.get("state") == "ALARM":
                line += f" The guard saw it at batch {event['batch']}: {event['message']}"
                break
        else:
            if run.trace and any(row.get("R") is not None for row in run.trace):
                line += " The guard had nothing to correct."
        if run.corrections and run.corrections[-1]["correction"] == "freeze":
            line += f" At batch {run.corrections[-1]['batch']} it stopped the updates for good."
        lines.append(line + _modes(run))
    return lines


def _modes(run: Run) -> str:
    """In which modes a guarded run was, and for how much of the stream."""
    counts = Counter(row["mode"] for row in run.trace if row.get("mode"))
    shares = [f"{count / len(run.trace):.0%} {mode}" for mode, count in counts.most_common()]
    return f" Batches: {', '.join(shares)}." if shares else ""


@styled
def curves(
    references: Sequence[tuple[str, Run]],
    runs: Sequence[Run],
    num_classes: int,
    thresholds: dict[str, float],
) -> Figure:
    """Running accuracy, separation ratio and marginal drift of the runs over the stream, with the
    corrections marked.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    accuracy, ratio, drift = figure.subplots(3, 1, sharex=True)
    for style, (name, run) in zip((":", "--"), references, strict=False):
        centers, values = running_balanced_accuracy(run.predictions, run.labels, num_classes)
        accuracy.plot(centers * _per_image(run), values, style, color=GREY, label=name)
    for color, run in zip(_COLORS, runs, strict=False):
        centers, values = running_balanced_accuracy(run.predictions, run.labels, num_classes)
        accuracy.plot(centers * _per_image(run), values, color=color, label=run.title)
        for axes, column in ((ratio, "R"), (drift, "drift")):
            points = [
                (row["batch"], row[column]) for row in run.trace if row.get(column) is not None
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=color,
                    marker=".",
                    markersize=4,
                    label=run.title,
                )
        for axes in (accuracy, ratio, drift):
            for event in run.corrections:
                axes.axvline(event["batch"], color=color, linewidth=0.9, alpha=0.6)
    for axes, column in ((ratio, "R"), (drift, "drift")):
        if column in thresholds:
            axes.axhline(thresholds[column], color=GREY, linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
    accuracy.set_ylabel("running balanced\naccuracy (%)")
    accuracy.legend(fontsize="small", ncols=3, frameon=True)
    ratio.set_ylabel("separation ratio R")
    drift.set_ylabel("marginal drift")
    drift.set_xlabel("batch")
    return figure


def _marginals(
    references: Sequence[tuple[str, Run]], runs: Sequence[Run], class_names: Sequence[str]
) -> Figure:
    shown = [*references[-1:], *((run.title, run) for run in runs)]
    figure = Figure(figsize=(9, 2 + 1.5 * len(shown)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(shown) + 1, 1, sharex=True, sharey=True))
    curves = [(name, run.predictions, run) for name, run in shown] + [
        ("true labels", runs[0].labels, runs[0])
    ]
    for axes, (name, classes, run) in zip(panels, curves, strict=True):
        centers, shares = running_marginals(classes, len(class_names))
        axes.stackplot(centers * _per_image(run), shares.T, labels=class_names, alpha=0.85)
        axes.set_title(name, fontsize="medium", loc="left")
        axes.set_ylim(0, 1)
        for event in run.corrections if name != "true labels" else ():
            axes.axvline(event["batch"], color=page.INK, linewidth=0.9)
    panels[-1].set_xlabel("batch")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(class_names),
        fontsize="small",
    )
    return figure


def _samples(images: Sequence[tuple[str, ImageSet]], per_class: int = 3) -> Figure:
    classes = images[0][1].num_classes
    figure = Figure(figsize=(9, 1.1 * per_class * len(images)), layout="constrained")
    panels = figure.subplots(per_class * len(images), classes, squeeze=False)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for block, (name, image_set) in enumerate(images):
        panels[block * per_class][0].set_ylabel(name, fontsize="small")
        for label in range(classes):
            panels[0][label].set_title(images[0][1].class_names[label], fontsize="small")
            for row, index in enumerate(np.flatnonzero(image_set.labels == label)[:per_class]):
                image = image_set[int(index)]["image"].clamp(0, 1).permute(1, 2, 0).numpy()
                panels[block * per_class + row][label].imshow(
                    image.squeeze(), cmap="gray", vmin=0, vmax=1
                )
    return figure


def _per_image(run: Run) -> float:
    return len(run.trace) / len(run.predictions)
