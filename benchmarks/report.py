"""A self-contained HTML page about a few runs over the same stream."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.runs import Run
from callbacks.trajectory import running_balanced_accuracy, running_marginals
from datamodules import ImageSet

_COLORS = ("#c0362c", "#2563a8", "#1a8754", "#d9962b", "#7a4fa3")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5c6672; --page: #f6f7f9; --card: #fff; --line: #dfe3e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b1; --page: #14181d; --card: #1d232b; --line: #343c47; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.lead { color: var(--soft); margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { padding: .45rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 0 0 1rem; padding: .6rem; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figure img { width: 100%; height: auto; display: block; } figcaption { color: #5c6672; font-size: .9rem; padding-top: .4rem; }
li { margin: .3rem 0; }
@media (max-width: 36rem) { body { padding: .8rem; } th, td { padding: .35rem .3rem; font-size: .85rem; } }
"""


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
    sections = [
        f"<h1>{html.escape(title)}</h1><p class='lead'>{html.escape(lead)}</p>",
        _table([*references, *((run.title, run) for run in runs)]),
        "<h2>What happened</h2><ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in _story(runs, quarter)) + "</ul>",
        "<h2>Accuracy, separation and drift over the stream</h2>",
        _figure(
            curves(references, runs, len(class_names), thresholds),
            "Vertical lines: corrections. Dashed: models that learn nothing, and the guard's thresholds. R compares the "
            "separation of classes with the control's; drift is the total variation between their predictions.",
        ),
        "<h2>What each model answered</h2>",
        _figure(
            _marginals(references, runs, class_names),
            "Share of each class among the predictions, and among the true labels.",
        ),
        "<h2>Sample images</h2>",
        _figure(_samples(images), "Three images of each class, as the source's scanner and as the target's shows them."),
    ]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{_STYLE}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _table(rows: Sequence[tuple[str, Run]]) -> str:
    head = "<tr><th>run</th><th>balanced accuracy</th><th>last quarter</th><th>alarms</th><th>resets</th></tr>"
    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{run.metrics['balanced_accuracy']:.1f} %</td>"
        f"<td>{run.metrics['last_quarter']:.1f} %</td><td>{run.metrics['alarms']}</td><td>{run.metrics['resets']}</td></tr>"
        for name, run in rows
    )
    return f"<div class='wide'><table>{head}{body}</table></div>"


def _story(runs: Sequence[Run], last_quarter: dict[str, float]) -> list[str]:
    """What a reader should take from the runs, a sentence each."""
    lines = []
    best = max(last_quarter, key=lambda name: last_quarter[name])
    for run in runs:
        gap = run.metrics["last_quarter"] - last_quarter[best]
        side = "below" if gap < 0 else "above"
        line = f"{run.title} ends {abs(gap):.1f} points {side} the {best} in the last quarter of the stream."
        for event in run.events:
            if event["event"] == "verdict" and event.get("state") == "ALARM":
                line += f" The guard saw it at batch {event['batch']}: {event['message']}"
                break
        else:
            if run.trace and any(row.get("R") is not None for row in run.trace):
                line += " The guard had nothing to correct."
        if run.corrections and run.corrections[-1]["correction"] == "freeze":
            line += f" At batch {run.corrections[-1]['batch']} it stopped the updates for good."
        lines.append(line)
    return lines


def curves(
    references: Sequence[tuple[str, Run]], runs: Sequence[Run], num_classes: int, thresholds: dict[str, float]
) -> Figure:
    """Running accuracy, separation ratio and marginal drift of the runs over the stream, with the corrections marked."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    accuracy, ratio, drift = figure.subplots(3, 1, sharex=True)
    for style, (name, run) in zip((":", "--"), references, strict=False):
        centers, values = running_balanced_accuracy(run.predictions, run.labels, num_classes)
        accuracy.plot(centers * _per_image(run), values, style, color="#8a8f98", label=name)
    for color, run in zip(_COLORS, runs, strict=False):
        centers, values = running_balanced_accuracy(run.predictions, run.labels, num_classes)
        accuracy.plot(centers * _per_image(run), values, color=color, label=run.title)
        for axes, column in ((ratio, "R"), (drift, "drift")):
            points = [(row["batch"], row[column]) for row in run.trace if row.get(column) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, marker=".", markersize=4, label=run.title)
        for axes in (accuracy, ratio, drift):
            for event in run.corrections:
                axes.axvline(event["batch"], color=color, linewidth=0.9, alpha=0.6)
    for axes, column in ((ratio, "R"), (drift, "drift")):
        if column in thresholds:
            axes.axhline(thresholds[column], color="#8a8f98", linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
    accuracy.set_ylabel("running balanced\naccuracy (%)")
    accuracy.legend(fontsize="small", ncols=3)
    ratio.set_ylabel("separation ratio R")
    drift.set_ylabel("marginal drift")
    drift.set_xlabel("batch")
    return figure


def _marginals(references: Sequence[tuple[str, Run]], runs: Sequence[Run], class_names: Sequence[str]) -> Figure:
    shown = [*references[-1:], *((run.title, run) for run in runs)]
    figure = Figure(figsize=(9, 2 + 1.5 * len(shown)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(shown) + 1, 1, sharex=True, sharey=True))
    curves = [(name, run.predictions, run) for name, run in shown] + [("true labels", runs[0].labels, runs[0])]
    for axes, (name, classes, run) in zip(panels, curves, strict=True):
        centers, shares = running_marginals(classes, len(class_names))
        axes.stackplot(centers * _per_image(run), shares.T, labels=class_names, alpha=0.85)
        axes.set_title(name, fontsize="medium", loc="left")
        axes.set_ylim(0, 1)
        for event in run.corrections if name != "true labels" else ():
            axes.axvline(event["batch"], color="black", linewidth=0.9)
    panels[-1].set_xlabel("batch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(class_names), fontsize="small")
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
                panels[block * per_class + row][label].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
    return figure


def _per_image(run: Run) -> float:
    return len(run.trace) / len(run.predictions)


def _figure(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{data}'><figcaption>{text}</figcaption></figure>"
