"""How far a model's classes have left the source's in feature space (Hoang et al., PeTTA, NeurIPS
2024).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def running_class_means(
    mean: Tensor, features: Tensor, labels: Tensor, memory: float
) -> tuple[Tensor, Tensor]:
    """Take a batch into the running class means of features.

    Args:
        mean: (C, D) so far.
        features: (N, D).
        labels: (N,) class of each row, 0..C-1.
        memory: weight of what was, for a class that the batch shows; other classes stay as they
            are.

    Returns:
        The means (C, D), and which classes the batch shows (C,).
    """
    member = F.one_hot(labels, len(mean)).to(features)
    counts = member.sum(0)
    present = counts > 0
    means = member.T @ features / counts.clamp(min=1)[:, None]
    return torch.where(present[:, None], torch.lerp(means, mean, memory), mean), present


def departure(mean: Tensor, source_mean: Tensor, source_var: Tensor) -> Tensor:
    """γ: 1 − exp(−d), d the mean squared distance of classes to the source's, in units of the
    source's variance.

    Args:
        mean: (K, D) running feature means of the classes that count.
        source_mean: (K, D) the source's.
        source_var: (K, D) its variances.

    Returns:
        Scalar in [0, 1).
    """
    distance = ((mean - source_mean).square() / (source_var + 1e-6)).mean()
    return 1 - (-distance).exp()
