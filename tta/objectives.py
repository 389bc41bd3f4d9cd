"""Loss functions of test-time adaptation, pure and per sample."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.distributed import joint_mean


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of softmax(logits), in nats.

    Args:
        logits: (N, C).

    Returns:
        (N,) values in [0, ln C].
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Cross-entropy of softmax(logits) against softmax(target_logits), in nats: (N,) of two (N,
    C).
    """
    return -(target_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def symmetric_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Mean of the cross-entropies in both directions (Wang et al., ICCV 2019): (N,) of two (N,
    C).
    """
    return (cross_entropy(logits, target_logits) + cross_entropy(target_logits, logits)) / 2


def soft_likelihood_ratio(logits: Tensor, clip: float = 0.99, eps: float = 1e-5) -> Tensor:
    """−Σ p ln(p / (1−p)): unlike entropy, its gradient does not vanish for confident samples
    (Marsden et al., WACV 2024).

    Args:
        logits: (N, C).
        clip: largest p.
        eps: added within the logarithm.

    Returns:
        (N,).
    """
    p = logits.softmax(-1).clamp(max=clip)
    return -(p * (p / (1 - p) + eps).log()).sum(-1)


def opinion_entropy(logits: Tensor) -> Tensor:
    """Entropy over C beliefs and the mass that a subjective opinion leaves uncertain (Zhang et al.,
    COME, ICLR 2025).

    With x the logits, their norm held constant, beliefs are b = e^x / S and the uncertain mass u =
    C / S, where S = Σ e^x + C: a softmax over x and one further logit ln C.

    Args:
        logits: (N, C).

    Returns:
        (N,) values in [0, ln(C+1)].
    """
    norm = logits.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    x = logits / norm * norm.detach()
    return entropy(torch.cat([x, torch.full_like(x[:, :1], math.log(logits.shape[1]))], 1))


def marginal_entropy(logits: Tensor, groups: int = 1) -> Tensor:
    """Entropy of the mean prediction of a batch, in nats.

    Args:
        logits: (M, C).
        groups: G, of which each has a mean of its own; rows 0..G-1 are of groups 0..G-1, the next G
            again.

    Returns:
        Scalar in [0, ln C], the mean over groups.
    """
    mean = group_means(logits.softmax(-1), groups)
    return -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum() / groups


def group_means(values: Tensor, groups: int) -> Tensor:
    """(G·C,) mean of values (M, C) over the rows of each group, which come in turn; of all
    processes.
    """
    return joint_mean(values if groups == 1 else values.reshape(-1, groups * values.shape[1]))


def balanced_weights(labels: Tensor, marginal: Tensor, target: Tensor) -> Tensor:
    """Weights that give each predicted class its target share of the loss: target(ŷ) / marginal(ŷ).

    Args:
        labels: (N,) predicted classes.
        marginal: (C,) share of each class among recent predictions.
        target: (C,) share that each class should have.

    Returns:
        (N,) weights; their mean is 1 where ``marginal`` is exactly the labels' own.
    """
    return (target / marginal)[labels]


def rescaled(values: Tensor) -> Tensor:
    """Values (N,) mapped to [0, 1] by their extremes; all 0 where they are equal, as in a batch of
    one.
    """
    low, high = values.min(), values.max()
    return (
        (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
        if len(values)
        else values
    )


def similarity(probabilities: Tensor, marginal: Tensor, group: Tensor | None = None) -> Tensor:
    """Cosine between each row of (M, C) and a marginal (C,), or that of its group in (G·C,):
    (M,).
    """
    marginals = marginal.view(-1, probabilities.shape[1])
    own = marginals if group is None else marginals[group]
    return F.cosine_similarity(probabilities, own, dim=1)
