"""What a model answers on the whole: pure functions of the marginal of its predictions."""

import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Counts where they are: on a device, or read back to the host.
Counts = TypeVar("Counts", Tensor, NDArray[Any])


def likeliest(logits: Tensor) -> Tensor:
    """(M,) the class of each row of logits (M, C), or (N, *spatial) of maps (N, C, *spatial).

    What ``argmax`` gives, in an eighth of its time where a row's classes lie apart in memory, as
    those of pixels do (torch 2.13, on a CPU).
    """
    return logits.max(1).indices


def predicted_counts(logits: Tensor, num_classes: int, group: Tensor | None = None) -> Tensor:
    """Number of rows predicted as each class; rows with a non-finite logit count for none.

    Args:
        logits: (M, C) of the rows.
        num_classes: C, or G·C where rows are of several groups.
        group: (M,) of the rows, 0..G-1; None: there is one.

    Returns:
        (C,), or (G·C,), one group's classes after the other's.
    """
    # isfinite would be five operations; the largest magnitude tells of a NaN as well.
    finite = logits.abs().amax(1) < math.inf
    labels = likeliest(logits)
    labels = labels if group is None else group * logits.shape[1] + labels
    return logits.new_zeros(num_classes, dtype=torch.float32).index_add_(0, labels, finite.float())


def marginal_drift(adapted: Counts, control: Counts) -> Any:
    """Total variation between two predicted marginals, taken on the same images.

    Args:
        adapted: (C,) counts of the adapted model's predictions.
        control: (C,) counts of the control's.

    Returns:
        Scalar in [0, 1]; NaN where either has no prediction.
    """
    return abs(adapted / adapted.sum() - control / control.sum()).sum() / 2


def chance_drift(shares: Counts, images: float) -> Any:
    """Total variation that chance alone is expected to make between a mix of classes and so many
    images drawn from it.

    Half the sum of the mean absolute deviations of binomial shares, each taken as normal.

    Args:
        shares: (C,) of the mix, summing to 1.
        images: how many are drawn; at least 1.

    Returns:
        Scalar of at least 0; with few images of many classes, where shares are no longer normal, it
        may exceed 1.
    """
    return ((2 * shares * (1 - shares) / (math.pi * images)) ** 0.5).sum() / 2


def vanished_classes(
    adapted: NDArray[Any], control: NDArray[Any], seen: float = 20.0, share: float = 0.1
) -> NDArray[np.bool_]:
    """Classes that the control still predicts and the adapted model has (almost) ceased to.

    Of many classes a window holds few predictions each. They vanish together where those whose
    count has halved had half of the control's predictions, and the adapted model uses at most half
    as many classes (the exponential of the entropy).

    Args:
        adapted: (C,) counts of the adapted model's predictions in the window.
        control: (C,) counts of the control's.
        seen: the control must predict the class, or those that vanish together, at least so often.
        share: the adapted model predicts it at most at this share of the control's count.

    Returns:
        (C,) booleans.
    """
    halved = (control > 0) & (control < seen) & (adapted <= control / 2)
    together = (control * halved).sum() >= max(control.sum() / 2, seen)
    narrowed = _classes_used(adapted) <= _classes_used(control) / 2
    alone = (control >= seen) & (adapted <= share * control)
    return alone | (halved & bool(together and narrowed))


def _classes_used(counts: NDArray[Any]) -> float:
    """The exponential of the entropy of the counts; 1 where there are none."""
    p = counts[counts > 0] / max(counts.sum(), 1e-12)
    return math.exp(-(p * np.log(p)).sum())


def prediction_bias(predicted: Tensor, true: Tensor) -> Tensor:
    """β: the Kullback–Leibler divergence of the true marginal from the predicted one, over ln C
    (arXiv 2606.02339).

    0 is a model that predicts each class as often as it occurs; 1, where classes are balanced, one
    that answers with a single class.

    Args:
        predicted: (C,) counts of the predictions.
        true: (C,) counts of the true classes.

    Returns:
        Scalar of at least 0; infinite where a class is predicted that does not occur, 0 where there
        is but one class, NaN where either has no count.
    """
    p, q = predicted / predicted.sum(), true / true.sum()
    if len(p) == 1:
        return (p - q).sum()  # 0, or NaN
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum().clamp(min=0) / math.log(
        len(p)
    )
