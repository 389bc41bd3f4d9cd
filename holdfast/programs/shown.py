"""What the demo shows: its runs, their table, and the page."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.adapting.run import adapt
from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.report import figures, page
from holdfast.callbacks.report.strips import timeline
from holdfast.callbacks.trajectory import running_balanced_accuracy
from holdfast.datamodules import ImageSet, load_images
from holdfast.programs import clusters
from holdfast.results import Adapted
from holdfast.training.config import GROUPS, TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.style import GREY, save, styled

#: Twenty times the rate at which adaptation helps: there entropy minimisation collapses, wherever
#: the source was trained.
_RATE = "method.lr=2e-2"
#: The stream comes in random order, which a site may know, and images do not tell.
_GUARDED = "guard=on guard.order=mixed"
#: The runs, by title: how adapt.py is asked for each, and its colour. The first two learn nothing.
_RUNS = {
    "source": ("method=source guard=off", page.SOURCE),
    "control": ("method=norm guard=off", page.CONTROL),
    "tent unguarded": (f"method=tent {_RATE} guard=off", page.ADAPTED),
    "tent guarded": (f"method=tent {_RATE} {_GUARDED}", page.SERVED),
    "dsbr guarded": (f"method=dsbr {_RATE} {_GUARDED}", page.COLORS[2]),
}
_FIGURES = ("balanced_accuracy", "last_quarter", "alarms", "resets")
# What the page says.
_LEAD = (
    "A model trained on cells under one scanner meets another scanner, and adapts at twenty times "
    "the sane learning rate."
)
_CURVES = (
    "Vertical lines: corrections. Dashed: the guard's thresholds. R compares the separation of "
    "classes with the control's; drift is the total variation between their predictions."
)
_PLANE = (
    "Each point is an image, coloured by its true class, in the plane that tells the source's "
    "classes apart best. Crosses are their means, lines the borders between them; both stay. What "
    "lies beyond is on the rim. Another scanner moves images across the borders. Entropy alone "
    "then mixes the classes; guarded, they stay apart."
)


class DemoRun(NamedTuple):
    """A finished run, in stream order: what it left, its trace a dictionary a batch, and classes
    (N,) as predicted and as they are.
    """

    left: Adapted
    trace: list[dict[str, Any]]
    predictions: Tensor
    labels: Tensor


def adapted(parts: Assembly) -> DemoRun:
    """Carry out a run, and read what it left."""
    left, images = Adapted(*adapt(parts)), parts.images
    labels = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))
    batches = zip(*left.trace.values(), strict=True)
    said = [images.class_names.index(name) for name in left.predictions["prediction"]]
    return DemoRun(
        left=left,
        trace=[dict(zip(left.trace, row, strict=True)) for row in batches],
        predictions=torch.tensor(said),
        labels=torch.tensor([labels[name] for name in left.predictions["id"]]),
    )


def demo(output: str, seed: int, epochs: int, passes: int, images: int) -> dict[str, Any]:
    """Train, adapt, print the table, write ``summary.json``, ``report.html`` and its pictures.

    Arguments are those of ``DemoConfig``.

    Returns:
        The content of ``summary.json``.
    """
    folder = Path(output)
    words = [f"seed={seed}", "wandb.group=demo", "overwrite=true"]
    source = folder / "source_model"  # beside the run of the un-updated source
    print("Training a source model on scanner_a …")
    options = [f"data.target_images={images}", f"epochs={epochs}", "calibrate=quick"]
    train(entry.configured(TrainConfig, GROUPS, [*words, *options, f"output={source}"]))
    checkpoint, runs = SourceCheckpoint.load(source), {}
    for title, (asked, _) in _RUNS.items():
        place = folder / title.replace(" ", "_")
        print(f"Streaming scanner_b through {title} …")
        words_of_run = [*asked.split(), f"source={source}", f"stream.passes={passes}"]
        parts = Assembly.of(configure([*words, *words_of_run, f"output={place}"]), checkpoint)
        runs[title] = adapted(parts)
    summary = _summary(runs)
    entry.write_json(folder / "summary.json", summary)
    home = load_images("phantom", parts.config.data.options, "test")
    _draw(folder, checkpoint, runs, home, parts.images)
    print(f"\n{'run':<18}{'balanced accuracy':>18}{'last quarter':>14}{'resets':>8}")
    for title, run in runs.items():
        score, last, _, resets = (run.left.metrics[key] for key in _FIGURES)
        print(f"{title:<18}{score:>16.1f} %{last:>12.1f} %{resets:>8}")
    print(f"\nOpen {folder / 'report.html'}")
    return summary


def _summary(runs: Mapping[str, DemoRun]) -> dict[str, Any]:
    """The content of ``summary.json``, of runs by title."""
    learning = {title: run for title, run in runs.items() if title not in ("source", "control")}
    return {
        **{name: runs[name].left.metrics["balanced_accuracy"] for name in ("source", "control")},
        "runs": [
            {
                "name": title.split()[0],
                "guarded": title.endswith(" guarded"),
                **{key: run.left.metrics[key] for key in _FIGURES},
            }
            for title, run in learning.items()
        ],
    }


def _draw(
    folder: Path,
    checkpoint: SourceCheckpoint,
    runs: Mapping[str, DemoRun],
    home: ImageSet,
    target: ImageSet,
) -> None:
    """Write the page, and its pictures as files of their own."""
    levels = levels_of(GuardConfig(), checkpoint.calibration).shown
    save(curves(runs, levels), folder / "demo.png")
    shown = _clusters(checkpoint, home, target, runs)
    save(shown.picture(_colors(home)), folder / "clusters.png")
    scanners = {"source: scanner_a": home, "target: scanner_b": target}
    whole = report(runs, levels, scanners, shown.panels())
    (folder / "report.html").write_text(whole, encoding="utf-8")


def _colors(images: ImageSet) -> dict[str, str]:
    """Colours of the classes, by name."""
    colors = figures.class_colors(torch.ones(len(images.class_names)))
    return dict(zip(images.class_names, colors.values(), strict=True))


def _clusters(
    checkpoint: SourceCheckpoint, home: ImageSet, target: ImageSet, runs: Mapping[str, DemoRun]
) -> clusters.Panels:
    """Where the classes lie: at home, under the shift, and where runs of Tent end."""
    windows = {
        "The source at home": clusters.seen(checkpoint, home, statistics="source"),
        "Another scanner, batch statistics": clusters.seen(checkpoint, target),
    }
    for title in ("tent unguarded", "tent guarded"):
        left = clusters.seen(checkpoint, target, runs[title].left.state)
        windows[f"{title.capitalize()}, at the end"] = left
    return clusters.Panels.of(checkpoint, windows, dict(enumerate(_colors(home).values())))


def report(
    runs: Mapping[str, DemoRun],
    levels: Mapping[str, float],
    scanners: Mapping[str, ImageSet],
    shown: Sequence[str],
) -> str:
    """The page, as HTML.

    Args:
        runs: by title.
        levels: to mark in the curves, by trace column: R and drift.
        scanners: images to show, by name.
        shown: pictures of where classes lie.
    """
    head = ["run", "balanced accuracy, %", "last quarter, %", "alarms", "resets"]
    lines = [[title, *(run.left.metrics[key] for key in _FIGURES)] for title, run in runs.items()]
    classes = next(iter(scanners.values())).class_names
    colors, batches = figures.class_colors(torch.ones(len(classes))), len(runs["source"].trace)
    said = {title: run.predictions for title, run in runs.items() if title != "source"}
    panels = {**said, "true labels": runs["source"].labels}
    guarded = {title: run for title, run in runs.items() if title.endswith(" guarded")}
    modes = [
        page.figure(partial(timeline, run.trace, run.left.events), "", f"{title}.")
        for title, run in guarded.items()
    ]
    legend = page.legend({name: colors[label] for label, name in enumerate(classes)})
    answers = page.figure(
        lambda: figures.marginals(panels, colors, len(classes), batches),
        "Share of each class among the predictions, and among the true labels.",
    )
    sections = [
        (
            "Accuracy, separation and drift over the stream",
            [page.figure(lambda: curves(runs, levels), _CURVES, wide=True)],
        ),
        ("Where the classes lie", [page.paragraph(_PLANE), legend, page.grid("two", shown)]),
        ("What the guard did", [page.grid("two", modes)]),
        ("What each model answered", [legend, answers]),
        ("Sample images", [page.grid("pictures", _samples(scanners))]),
    ]
    title = "Holdfast demo: adaptation with and without a guard"
    return page.page(title, _LEAD, sections, head=[page.table(head, lines)])


def _samples(scanners: Mapping[str, ImageSet]) -> list[str]:
    """An image of each class from each scanner."""
    shown = []
    for name, images in scanners.items():
        for label, class_name in enumerate(images.class_names):
            image = images[int(np.flatnonzero(images.labels == label)[0])]["image"]
            shown.append(page.picture(image.numpy(), class_name, name))
    return shown


@styled
def curves(runs: Mapping[str, DemoRun], levels: Mapping[str, float]) -> Figure:
    """Running accuracy, separation ratio and marginal drift of the runs over the stream, with the
    corrections marked.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    names = {"R": "separation ratio R", "drift": "marginal drift"}
    for title, run in runs.items():
        color, classes = _RUNS[title][1], int(run.labels.max()) + 1
        centers, values = running_balanced_accuracy(run.predictions, run.labels, classes)
        line = "--" if title in ("source", "control") else "-"
        places = centers * len(run.trace) / len(run.labels)
        panels[0].plot(places, values, line, color=color, label=title)
        for axes, column in zip(panels[1:], names, strict=True):
            measured = figures.column(run.trace, column)
            known = ~np.isnan(measured)
            axes.plot(np.flatnonzero(known), measured[known], ".-", color=color, markersize=4)
        for event in run.left.events:
            for axes in panels if event["event"] == "correction" else ():
                axes.axvline(event["batch"], color=color, linewidth=0.9, alpha=0.6)
    for axes, (column, name) in zip(panels[1:], names.items(), strict=True):
        if column in levels:
            axes.axhline(levels[column], color=GREY, linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name)
    panels[0].set_ylabel("running balanced\naccuracy (%)")
    panels[0].legend(fontsize="small", ncols=3, frameon=True)
    panels[2].set_xlabel("batch")
    return figure
