"""How well a model fits a stream that has no labels: evidence by which the guard chooses what
serves.

A model is believed when its predictions are confident and not all the same, when it separates its
classes in feature space, and when what it calls a class looks like that class did at the source:

    evidence = I / ln C + .2 ln J − .4 divergence − .5 (share of classes not seen)
    I = H(mean p) − mean H(p)

I is the mutual information of image and prediction; J the class-balanced separation and the
divergence the squared distance of class means to the source's in units of its variance, both under
the model's own labels. None of them needs classes in the source's proportions. Each class remembers
its own last samples, so that what was learned of it outlives a stretch without it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tta.distributed import any_of_all, mean_of_all, moments_of_all
from tta.separation import ClassMoments, class_moments, merge, no_moments, separation_of

#: Weights of separation, of divergence, and of the share of classes that the model has hardly
#: predicted so far; chosen, as the other constants, on streams of nuclei, vessels, chest and
#: phantom. Separation weighs less than divergence, since a model that is confident and wrong
#: separates what it believes to be classes.
SEPARATION, DIVERGENCE, UNSEEN = 0.2, 0.4, 0.5
#: Samples of each class that are remembered; least samples of a class that say something.
MEMORY, MIN_COUNT = 128.0, 8.0
#: Least weight of a new batch in the mean prediction.
RATE = 0.03
#: Features so many times as long as the batch's median come from a broken image, and would outweigh
#: all others for long.
_OUTLYING = 100.0
#: What separation and divergence count as while they are undefined: little, and much.
_UNKNOWN_SEPARATION, _UNKNOWN_DIVERGENCE = 0.1, 1.0


class Evidence(NamedTuple):
    """Running state of one model.

    Attributes:
        moments: of each class's features, under the model's own labels.
        mean: (C,) mean prediction.
        entropy: mean entropy of predictions, in nats.
        batches: how many were seen.
    """

    moments: ClassMoments
    mean: Tensor
    entropy: Tensor
    batches: int


def no_evidence(num_classes: int, width: int, device: torch.device | str = "cpu") -> Evidence:
    """The state before the first batch."""
    zeros = torch.zeros(num_classes, device=device)
    return Evidence(no_moments(num_classes, width, device), zeros, zeros[0].clone(), 0)


def gathered(past: Evidence, logits: Tensor, features: Tensor) -> Evidence:
    """The state after another batch, of all processes, in O(N·D + C·D).

    Rows that are not finite, or whose features are a hundred times as long as the batch's median,
    are left out.

    Args:
        past: the state.
        logits: (N, C).
        features: (N, D).
    """
    lengths = features.float().norm(dim=1)
    finite = (
        torch.isfinite(logits).all(1)
        & lengths.isfinite()
        & ~(lengths > _OUTLYING * lengths.nanmedian())
    )
    count = int(finite.sum())  # the only read-back to the host: rows are weighed, not picked
    if not any_of_all(count > 0, logits.device):
        return past
    logits = torch.where(finite[:, None], logits, 0.0).float()
    features = torch.where(
        finite[:, None], features, torch.nan
    )  # such rows are in no class's moments
    classes = logits.shape[1]
    decay = MEMORY / past.moments.counts.clamp(min=MEMORY)
    moments = merge(
        past.moments, moments_of_all(class_moments(features, logits.argmax(1), classes)), decay
    )
    p = logits.softmax(1) * finite[:, None]
    rate = max(1 / (past.batches + 1), RATE)
    means = [p.sum(0) / max(count, 1), torch.special.entr(p).sum() / max(count, 1)]
    (mean, entropy), _ = mean_of_all(means, count)
    return Evidence(
        moments,
        torch.lerp(past.mean, mean, rate),
        torch.lerp(past.entropy, entropy, rate),
        past.batches + 1,
    )


def divergence_of(
    moments: ClassMoments, source_mean: Tensor, source_var: Tensor, min_count: float = MIN_COUNT
) -> Tensor:
    """Mean squared distance of class means to the source's, in units of the source's variance
    within classes.

    Args:
        moments: of the classes.
        source_mean: (C, D) class means of the source's features.
        source_var: (C, D) their variances, which are averaged over classes.
        min_count: samples that a class needs to count.

    Returns:
        Scalar >= 0; NaN where no class has enough samples.
    """
    enough = moments.counts >= min_count
    distance = ((moments.mean - source_mean).square() / (source_var.mean(0) + 1e-6)).mean(1)
    return (distance * enough).sum() / enough.sum()


def evidence_of(
    state: Evidence, source_mean: Tensor | None = None, source_var: Tensor | None = None
) -> Tensor:
    """The evidence for a model; comparable between models on the same stream.

    Args:
        state: the model's.
        source_mean: (C, D) class means of the source's features; None: the divergence is left out.
        source_var: (C, D) their variances.

    Returns:
        A finite scalar.
    """
    information = torch.special.entr(state.mean).sum() - state.entropy
    seen = state.moments.counts >= MIN_COUNT
    separation = torch.where(
        seen.sum() >= 2, separation_of(state.moments, MIN_COUNT), _UNKNOWN_SEPARATION
    )
    evidence = (
        information / math.log(max(len(state.mean), 2))
        + SEPARATION * (separation + 0.01).log()
        - UNSEEN * (~seen).float().mean()
    )
    if source_mean is not None and source_var is not None:
        divergence = divergence_of(state.moments, source_mean, source_var).nan_to_num(
            nan=_UNKNOWN_DIVERGENCE
        )
        evidence = evidence - DIVERGENCE * divergence
    return evidence
