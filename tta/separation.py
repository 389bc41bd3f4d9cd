"""How far apart the classes lie in feature space, on the host.

The measure is class-balanced: unlike the trace ratio with empirical proportions, it hardly moves
when the proportions of the classes do, so that label shift alone is not mistaken for a collapse.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class ClassMoments:
    """Moments of each class's features; a batch costs what its images do, however many classes
    there are.

    Args:
        num_classes: C.
        width: D.

    Attributes:
        counts: (C,) effective number of samples.
        mean: (C, D) mean features; 0 where there is no sample.
        scatter: (C,) summed squared distance to the mean, over all features.

    Example:
        >>> moments = ClassMoments(num_classes=2, width=1)
        >>> moments.take(np.float32([[0], [2], [9], [11]]), np.array([0, 0, 1, 1]))
        >>> moments.separation()
        81.0
    """

    def __init__(self, num_classes: int, width: int) -> None:
        self.counts = np.zeros(num_classes)
        self.mean = np.zeros((num_classes, width), np.float32)
        self.scatter = np.zeros(num_classes)

    def take(
        self, features: NDArray[np.float32], labels: NDArray[np.integer], decay: float = 1.0
    ) -> None:
        """Take samples in (Chan et al.'s pairwise update); those whose squared norm is not finite
        are left out.

        Exact for ``decay`` 1: taking batch after batch equals taking all samples at once.

        Args:
            features: (N, D).
            labels: (N,) class of each, 0..C-1.
            decay: how often what was taken before counts now.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(np.square(features).sum(1))
        features, labels = features[finite], labels[finite]
        self.counts *= decay
        self.scatter *= decay
        if not len(labels):
            return
        present, place, number = np.unique(labels, return_inverse=True, return_counts=True)
        member = (labels == present[:, None]).astype(np.float32)
        mean = member @ features / number[:, None].astype(np.float32)
        scatter = np.bincount(place, np.square(features - mean[place]).sum(1))
        old, delta = self.counts[present], mean - self.mean[present]
        share = number / (old + number)
        self.mean[present] += share[:, None].astype(np.float32) * delta
        self.scatter[present] += scatter + np.square(delta).sum(1) * old * share
        self.counts[present] += number

    def separation(self, min_count: float = 2.0) -> float:
        """J: mean squared distance between class means over the mean variance within classes, in
        O(C·D) for classes with enough samples.

        J = mean over class pairs ‖m_c − m_c′‖² / mean over classes of tr S_c.

        Args:
            min_count: effective samples that a class needs to count, at least.

        Returns:
            At least 0; 0 when fewer than two classes have enough samples.
        """
        enough = np.flatnonzero(self.counts >= min_count)
        if len(enough) < 2:
            return 0.0
        means = self.mean[enough]
        # With centred means, the mean squared distance over pairs is 2/(K−1) times the summed
        # squared norms.
        between = 2 * np.square(means - means.mean(0)).sum() / (len(enough) - 1)
        within = (self.scatter[enough] / np.maximum(self.counts[enough], 1)).mean()
        return float(between / max(within, 1e-12))  # finite also where nothing varies within

    def state_dict(self) -> dict[str, Any]:
        """The moments, as tensors."""
        return {
            name: torch.from_numpy(getattr(self, name).copy())
            for name in ("counts", "mean", "scatter")
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.counts, self.mean, self.scatter = (
            state[name].cpu().numpy().copy() for name in ("counts", "mean", "scatter")
        )


def separation(
    features: NDArray[np.float32], labels: NDArray[np.integer], num_classes: int
) -> float:
    """J of one set of samples; see ``ClassMoments.separation``.

    Args:
        features: (N, D) penultimate features.
        labels: (N,) class of each row, 0..num_classes-1.
        num_classes: C.

    Returns:
        At least 0; 0 when fewer than two classes have two samples.
    """
    moments = ClassMoments(num_classes, features.shape[1])
    moments.take(features, labels)
    return moments.separation()
