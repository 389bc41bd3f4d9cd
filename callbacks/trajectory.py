"""The picture of a run: separation ratio, marginal drift, running accuracy, and the predicted
classes over the stream.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.style import AMBER, BLUE, GREY, RED, save, styled
from holdfast.tta.tasks import Task
from holdfast.tta.tasks.ranks import RankScorer

Numbers = npt.NDArray[np.float64]

#: Points of a curve; a screen shows no more.
_POINTS = 4000


class Course(NamedTuple):
    """What left a stream, over its course.

    Attributes:
        images: that left.
        score_name: of the figure that is drawn, in percent.
        score_centers: (P,) where windows of it lie, in images; empty where nothing is known.
        scores: (P,) the figure.
        share_name: of what the lower panel shows.
        share_centers: (W,) where windows of it lie, in images.
        shares: (W, C) of each class.
        names: of the C classes.
        most: the largest sum of shares that the panel has room for.
    """

    images: int
    score_name: str
    score_centers: Numbers
    scores: Numbers
    share_name: str
    share_centers: Numbers
    shares: Numbers
    names: Sequence[str]
    most: float = 1.0


def course_of_labels(
    task: Task, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Course:
    """Of answers of one class an image.

    Args:
        task: what they mean.
        probabilities: (N, C) as served, in stream order.
        labels: (N,) true classes, -1 where unknown.
        class_names: names of the C classes.
    """
    said = task.decide(probabilities)
    centers, values = np.empty(0), np.empty(0)
    if (labels >= 0).any():
        centers, values = _windowed(
            len(labels), 40, lambda rows: task.figure(probabilities[rows], labels[rows])
        )
    return Course(
        len(labels),
        f"running {task.watch.replace('_', chr(10))} (%)",
        *(centers, values),
        "share of predictions",
        *running_marginals(said, len(class_names)),
        class_names,
    )


def course_of_cases(dice: Numbers, shares: Numbers, class_names: Sequence[str]) -> Course:
    """Of masks.

    Args:
        dice: (N, K) of the foreground classes of each case, NaN where not known.
        shares: (N, K) of its pixels that are predicted as each.
        class_names: names of the K classes.
    """
    count, known = len(dice), np.isfinite(dice).any(1)
    centers, scores = np.empty(0), np.empty(0)
    if known.any():
        centers, scores = _windowed(count, 40, lambda rows: 100 * _mean_known(dice[rows]))
    return Course(
        count,
        "running Dice (%)",
        *(centers, scores),
        "share of pixels",
        *_windowed(count, 60, lambda rows: shares[rows].mean(0)),
        class_names,
        most=max(1.2 * float(shares.sum(1).max(initial=0)), 0.01),
    )


def course_of_findings(
    probabilities: Tensor, called: Tensor, findings: Tensor, class_names: Sequence[str]
) -> Course:
    """Of findings.

    Args:
        probabilities: (N, L) as served, in stream order.
        called: (N, L) whether each is called present.
        findings: (N, L) 1 present, 0 absent, NaN unknown.
        class_names: names of the L findings.
    """
    count = len(probabilities)
    centers, scores = np.empty(0), np.empty(0)
    if findings.isfinite().any():
        outputs = probabilities.logit(eps=1e-7)
        centers, scores = _windowed(count, 40, lambda rows: _area(outputs[rows], findings[rows]))
    shares = called.double().numpy()
    own = _windowed(count, 60, lambda rows: shares[rows].mean(0))
    return Course(
        *(count, "running macro\nAUROC (%)", centers, scores, "share of images", *own, class_names),
        most=max(1.2 * float(own[1].sum(1).max(initial=0)), 0.01),
    )


def _area(outputs: Tensor, findings: Tensor) -> float:
    """Macro AUROC of a window; NaN where no finding has one."""
    scorer = RankScorer(outputs.shape[1])
    scorer.add(outputs, findings)
    return scorer.scores().get("auroc", float("nan"))


def _mean_known(dice: Numbers) -> float:
    """Mean over the cases with a mask of (N, K); NaN where there is none."""
    known = dice[np.isfinite(dice).any(1)]
    return float(known.mean()) if len(known) else float("nan")


#: Of the picture, as shares of it; between panels, of a panel.
_MARGINS = {"left": 0.09, "right": 0.98, "top": 0.94, "bottom": 0.07, "hspace": 0.12}


@styled
def trajectory(
    rows: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    course: Course,
    thresholds: Mapping[str, float],
    title: str,
) -> Figure:
    """Draw a run.

    Args:
        rows: the trace, a dictionary a batch.
        events: what happened.
        course: of what left.
        thresholds: levels to mark, by trace column: R and drift.
        title: of the picture.
    """
    figure = Figure(figsize=(9, 8.5))
    # By hand: to look for margins takes half as long again, at the end of every run.
    figure.subplots_adjust(**_MARGINS)
    upper, middle, accuracy, lower = figure.subplots(4, 1, sharex=True)
    figure.suptitle(title)
    for axes, column, name in (
        (upper, "R", "separation ratio R"),
        (middle, "drift", "marginal drift"),
    ):
        _curve(axes, rows, column)
        axes.set_ylabel(name)
        if column in thresholds:
            axes.axhline(thresholds[column], color=GREY, linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
    batches = len(rows)
    if len(course.scores):
        places = over_batches(course.score_centers, course.images, batches)
        accuracy.plot(places, course.scores, color=BLUE)
        accuracy.set_ylabel(course.score_name)
        accuracy.set_ylim(0, 100)
    else:
        _curve(accuracy, rows, "entropy")
        accuracy.set_ylabel("mean entropy (nats)")
    places = over_batches(course.share_centers, course.images, batches)
    lower.stackplot(places, course.shares.T, labels=course.names, alpha=0.85)
    lower.set_ylabel(course.share_name)
    lower.set_ylim(0, course.most)
    lower.set_xlabel("batch")
    columns = min(len(course.names), 6)
    lower.legend(loc="upper left", fontsize="small", ncols=columns, frameon=True, framealpha=0.8)
    for axes in (upper, middle, accuracy, lower):
        _mark(axes, events)
    return figure


def save_trajectory(figure: Figure, path: Path) -> None:
    """Write the picture as PNG."""
    save(figure, path)


def running_balanced_accuracy(
    predictions: Tensor, labels: Tensor, num_classes: int, windows: int = 40
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Balanced accuracy in a window that slides along the stream.

    Args:
        predictions: (N,) predicted classes.
        labels: (N,) true classes, -1 where unknown.
        num_classes: C.
        windows: positions of the window, which is ``window_width`` images long.

    Returns:
        Centres of the windows, in images, and percent; both empty where nothing is labelled.
    """
    if not (labels >= 0).any():
        return np.empty(0), np.empty(0)
    return _windowed(
        len(labels),
        windows,
        lambda rows: balanced_accuracy(predictions[rows], labels[rows], num_classes),
    )


def running_marginals(
    predictions: Tensor, num_classes: int, windows: int = 60
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Share of each class among the predictions in a sliding window.

    Returns:
        Centres of the windows (W,), in images, and shares (W, C).
    """

    def shares(rows: slice) -> npt.NDArray[np.float64]:
        counts = torch.bincount(predictions[rows], minlength=num_classes).double()
        return (counts / counts.sum()).numpy()

    return _windowed(len(predictions), windows, shares)


def over_batches(
    places: npt.NDArray[np.float64], images: int, batches: int
) -> npt.NDArray[np.float64]:
    """Where places in a stream lie on an axis of batches, each of which is as wide as 1 about its
    number.

    >>> over_batches(np.array([0.0, 32.0, 96.0, 128.0]), images=128, batches=2).tolist()
    [-0.5, 0.0, 1.0, 1.5]

    Args:
        places: (P,) in images from the start.
        images: of the stream.
        batches: of the stream.
    """
    return places * max(batches, 1) / max(images, 1) - 0.5


def window_width(count: int) -> int:
    """Images in a window that slides along a stream.

    An eighth of the stream, but 200 images or more, as a balanced accuracy should have, where these
    are no more than a quarter; of a short stream a quarter, so that there is a course to see.

    Args:
        count: images of the stream.
    """
    return max(count // 8, min(200, count // 4), 1)


def _windowed(
    count: int, windows: int, measure: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    width = window_width(count)
    starts = np.unique(np.linspace(0, count - width, windows).astype(int))
    return starts + width / 2, np.array([measure(slice(int(s), int(s) + width)) for s in starts])


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str) -> None:
    known = ((row["batch"], row[column]) for row in rows if row.get(column) is not None)
    points = list(islice(known, 0, None, -(-len(rows) // _POINTS) or 1))
    if points:
        axes.plot(*zip(*points, strict=True), color=BLUE, marker=".", markersize=4)
    else:
        axes.text(
            0.5, 0.5, "not measured: guard=off", transform=axes.transAxes, ha="center", color=GREY
        )


def _mark(axes: Axes, events: Sequence[Mapping[str, Any]]) -> None:
    for event in events:
        if event["event"] == "correction":
            axes.axvline(event["batch"], color=RED, linewidth=1.2)
        elif event["event"] == "verdict" and event.get("state") == "WATCH":
            axes.axvline(event["batch"], color=AMBER, linewidth=0.8, linestyle=":")
