"""How far apart the classes lie in feature space: pure functions of features and labels.

The measure is class-balanced: unlike the trace ratio with empirical proportions, it hardly moves
when the proportions of the classes do, so that label shift alone is not mistaken for a collapse.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class ClassMoments(NamedTuple):
    """Moments of each class's features.

    Attributes:
        counts: (C,) effective number of samples.
        mean: (C, D) mean features; 0 where there is no sample.
        scatter: (C,) summed squared distance to the mean, over all features.

    Of several models all have a leading dimension.
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor


def no_moments(num_classes: int, width: int, device: torch.device | str = "cpu") -> ClassMoments:
    """Moments of no sample at all."""
    return ClassMoments(
        torch.zeros(num_classes, device=device),
        torch.zeros(num_classes, width, device=device),
        torch.zeros(num_classes, device=device),
    )


def class_moments(features: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
    """Moments of a batch, in O(N·D + N·C); rows whose squared norm is not finite are left out.

    Args:
        features: (N, D), or (K, N, D) of several models.
        labels: (N,) class of each row, 0..num_classes-1.
        num_classes: C.
    """
    features = features.detach().float()
    finite = features.square().sum(-1, keepdim=True).isfinite()
    features = torch.where(finite, features, 0.0)
    # Not F.one_hot, which reads back to the host on a CPU.
    classes = torch.arange(num_classes, device=labels.device)
    member = ((labels[:, None] == classes) & finite).to(features)
    count = member.sum(-2)
    mean = member.mT @ features / count.clamp(min=1)[..., None]
    distance = (features - mean[..., labels, :]).square().sum(-1, keepdim=True)
    return ClassMoments(count, mean, (member.mT @ distance)[..., 0])


def merge(past: ClassMoments, batch: ClassMoments, decay: float | Tensor = 1.0) -> ClassMoments:
    """Moments of both together, the past's counting ``decay`` times, or (C,) times (Chan et al.'s
    pairwise update).

    Exact for ``decay`` 1: merging batches equals taking the moments of all samples at once.
    """
    old = past.counts * decay
    count = old + batch.counts
    share = batch.counts / count.clamp(min=torch.finfo(count.dtype).tiny)
    delta = batch.mean - past.mean
    mean = past.mean + share[..., None] * delta
    scatter = past.scatter * decay + batch.scatter + delta.square().sum(-1) * old * share
    return ClassMoments(count, mean, scatter)


def separation_of(moments: ClassMoments, min_count: float = 2.0) -> Tensor:
    """J: mean squared distance between class means over the mean variance within classes, in
    O(C·D).

    J = mean over class pairs ‖m_c − m_c′‖² / mean over classes of tr S_c, over the classes with
    enough samples.

    Args:
        moments: moments of the classes.
        min_count: effective samples that a class needs to count, at least.

    Returns:
        Scalar >= 0, or (K,) of several models; 0 when fewer than two classes have enough samples.
    """
    enough = (moments.counts >= min_count).to(moments.mean)
    classes = enough.sum(-1)
    known = enough[..., None]
    center = (moments.mean * known).sum(-2, keepdim=True) / classes.clamp(min=1)[..., None, None]
    means = (moments.mean - center) * known
    # With centred means, the mean squared distance over pairs is 2/(K−1) times the summed squared
    # norms.
    between = 2 * means.square().sum((-2, -1)) / (classes - 1).clamp(min=1)
    spread = enough * moments.scatter / moments.counts.clamp(min=1)
    within = spread.sum(-1) / classes.clamp(min=1)
    return between / within.clamp(min=1e-12)  # finite also where nothing varies within classes


def separation(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """J of one set of samples; see ``separation_of``.

    Args:
        features: (N, D) penultimate features.
        labels: (N,) class of each row, 0..num_classes-1.
        num_classes: C.

    Returns:
        Scalar >= 0; 0 when fewer than two classes have two samples.
    """
    return separation_of(class_moments(features, labels, num_classes))
