"""What the predictions of a pass are worth; pure."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from holdfast.benchmarks.tables import MEASURES, Row
from holdfast.tta.marginal import marginal_drift, predicted_counts, prediction_bias
from holdfast.tta.metrics import stream_metrics
from holdfast.tta.tasks import Task

#: Within so many images from its start, a stream's running loss is held against that many (see
#: ``running_loss``).
_WARM_UP = 512


def scores(name: str, output: Tensor, truth: Tensor, task: Task) -> dict[str, float]:
    """What the task watches, balanced accuracy or another figure, over the stream and over its last
    quarter, in percent; NaN where it is not defined.

    Args:
        name: what the first is called; the second is NAME_last.
        output: (N, ...) of the network.
        truth: (N, ...) of the same images.
        task: what both mean.
    """

    def score(rows: slice) -> float:
        scorer = task.scorer()
        scorer.add(output[rows], truth[rows])
        return scorer.scores().get(task.watch, math.nan)

    return {name: score(slice(None)), f"{name}_last": score(_last_quarter(truth))}


def measures(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> Row:
    """``MEASURES`` over the stream and over its last quarter.

    Args:
        probabilities: (N, C) as served, in stream order.
        labels: (N,) true classes, -1 where unknown: such images are left out.
        class_names: of the C classes.

    Returns:
        β and total variation between the marginals of predicted and true classes, balanced
        accuracy, macro AUROC, and the share of the most frequent prediction, the latter three in
        percent; None where undefined.
    """
    last = _last_quarter(labels)
    late = _measures(probabilities[last], labels[last], class_names)
    return {
        **_measures(probabilities, labels, class_names),
        **{f"{name}_last": value for name, value in late.items()},
    }


def _measures(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> Row:
    known = labels >= 0
    if not known.any():
        return dict.fromkeys(MEASURES)
    probabilities, labels, classes = probabilities[known], labels[known], len(class_names)
    predicted = predicted_counts(probabilities, classes)
    true = torch.bincount(labels, minlength=classes)
    found = stream_metrics(probabilities, labels, class_names, [""] * len(labels))
    values = {
        "beta": float(prediction_bias(predicted, true)),
        "tv": float(marginal_drift(predicted, true)),
        "balanced_accuracy": found["balanced_accuracy"],
        "auroc": found.get("auroc", {}).get("macro"),
        "largest": 100 * float(predicted.max() / predicted.sum()),
    }
    return {
        name: None if value is None or math.isnan(value) else value
        for name, value in values.items()
    }


def running_loss(
    predictions: Tensor, references: Sequence[Tensor], labels: Tensor, batch_size: int
) -> Tensor:
    """Points of balanced accuracy by which predictions lie below the better of the references, from
    the stream's start on.

    It is the difference of running balanced accuracies over the same images, except that a class
    counts as if it had shown at least its share of 512 images: the first few images of a rare class
    would otherwise be worth many points each.

    Args:
        predictions: (N,) classes.
        references: other predictions (N,) of the same images.
        labels: (N,) true classes, -1 where unknown.
        batch_size: images a batch.

    Returns:
        (B,) points after each batch; below 0 where predictions are better.
    """
    ends = torch.arange(batch_size, len(labels) + batch_size, batch_size).clamp(max=len(labels)) - 1
    classes = torch.unique(labels[labels >= 0])
    members = (labels == classes[:, None]).double()
    least = members.mean(1, keepdim=True) * min(_WARM_UP, len(labels))
    shown = members.cumsum(1).maximum(least)
    right = (predictions == labels).double()
    losses = [
        (((reference == labels).double() - right) * members).cumsum(1) / shown
        for reference in references
    ]
    return 100 * torch.stack(losses).mean(1).amax(0)[ends]


def loss_before(alarm: int, losses: Tensor) -> float:
    """The largest running loss before the batch of the alarm; 0 where there was none.

    Args:
        alarm: number of the batch that raised it.
        losses: (B,) from ``running_loss``.
    """
    return float(losses[:alarm].clamp(min=0).amax()) if alarm else 0.0


def _last_quarter(labels: Tensor) -> slice:
    return slice(len(labels) * 3 // 4, None)
