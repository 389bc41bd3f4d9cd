"""What a stream's predictions are worth, where labels are known; all in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Labelled images that a quarter of the stream needs: of fewer, one more or less right moves the
#: figure by over 5 points.
_FEWEST = 20


def balanced_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean sensitivity over the classes that occur in ``labels``, in percent; NaN where there is
    none.

    (torchmetrics' macro accuracy also averages over classes that are predicted but absent, as
    zeros.)

    Args:
        predictions: (N,) predicted classes.
        labels: (N,) true classes; -1, for unlabelled images, is left out.
        num_classes: C.
    """
    # Here, for torchmetrics takes seconds to import, and what a stream is worth is told last.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    known = labels >= 0
    confusion = multiclass_confusion_matrix(predictions[known], labels[known], num_classes).double()
    support = confusion.sum(1)
    return float(100 * (confusion.diag() / support)[support > 0].mean())


class Tally:
    """Counts what is right batch by batch, in memory of (C, C).

    Example:
        >>> tally = Tally(2)
        >>> tally.add(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        >>> tally.scores()
        {'accuracy': 50.0, 'balanced_accuracy': 50.0}
    """

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.long)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in logits (N, C) and labels (N,); those outside of 0..C-1 are left out."""
        classes = len(self.confusion)
        labels = labels.cpu()
        known = (labels >= 0) & (labels < classes)
        pairs = classes * labels[known] + logits.argmax(1).cpu()[known]
        self.confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def merge(self, other: "Tally") -> None:
        """Take in another's images."""
        self.confusion += other.confusion

    def scores(self) -> dict[str, float]:
        """Accuracy and balanced accuracy in percent; none where no image had a label."""
        support, right = self.confusion.sum(1), self.confusion.diag()
        if not support.any():
            return {}
        shares = (right / support)[support > 0]
        return {
            "accuracy": float(100 * right.sum() / support.sum()),
            "balanced_accuracy": float(100 * shares.mean()),
        }


def stream_metrics(
    probabilities: Tensor, labels: Tensor, class_names: Sequence[str], domains: Sequence[str]
) -> dict[str, Any]:
    """Metrics of a stream and of each of its domains; empty where nothing is labelled.

    Args:
        probabilities: (N, C) in stream order.
        labels: (N,) true classes, -1 where unknown.
        class_names: names of the C classes.
        domains: (N,) domain of each image.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``auroc`` ({macro, per_class}), ``sensitivity`` and
        ``specificity`` (per class), ``ece``, ``last_quarter`` (balanced accuracy of the stream's
        last quarter, of 20 labelled images or more) and ``domains`` (the same for each); what is
        undefined, such as the sensitivity of a class that does not occur, is left out.
    """
    metrics = _metrics(probabilities, labels, class_names)
    if not metrics:
        return {}
    names = np.asarray(domains)
    metrics["domains"] = {}
    for domain in dict.fromkeys(domains):
        rows = torch.from_numpy(names == domain)
        metrics["domains"][domain] = _metrics(probabilities[rows], labels[rows], class_names)
    return metrics


def _metrics(probabilities: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    from torchmetrics.functional import classification as figures

    classes = len(class_names)
    quarter = slice(len(labels) * 3 // 4, None)
    last_probabilities, last_labels = probabilities[quarter], labels[quarter]
    known = labels >= 0
    if not known.any():
        return {}
    probabilities, labels = probabilities[known], labels[known]
    predictions = probabilities.argmax(1)
    confusion = figures.multiclass_confusion_matrix(predictions, labels, classes).double()
    support = confusion.sum(1)
    others = support.sum() - support
    correct_rejections = others - (confusion.sum(0) - confusion.diag())
    per_class = figures.multiclass_auroc(probabilities, labels, classes, average=None)

    def percent(values: Tensor, defined: Tensor) -> dict[str, float]:
        rows = zip(class_names, values.tolist(), defined.tolist(), strict=True)
        return {name: round(100 * value, 4) for name, value, ok in rows if ok}

    metrics: dict[str, Any] = {
        "accuracy": round(float(100 * confusion.diag().sum() / support.sum()), 4),
        "balanced_accuracy": round(balanced_accuracy(predictions, labels, classes), 4),
        "sensitivity": percent(confusion.diag() / support, support > 0),
        "specificity": percent(correct_rejections / others, others > 0),
        "ece": round(
            float(
                100
                * figures.multiclass_calibration_error(probabilities, labels, classes, n_bins=15)
            ),
            4,
        ),
    }
    auroc = percent(per_class, (support > 0) & (others > 0))
    if auroc:  # torchmetrics counts an absent class as 0, so the mean is taken here
        metrics["auroc"] = {"macro": round(sum(auroc.values()) / len(auroc), 4), "per_class": auroc}
    if (last_labels >= 0).sum() >= _FEWEST:
        metrics["last_quarter"] = round(
            balanced_accuracy(last_probabilities.argmax(1), last_labels, classes), 4
        )
    return metrics
