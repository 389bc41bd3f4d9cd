"""Areas under curves of ranked scores, for many weightings of the same images at once; pure."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


class Ranked(NamedTuple):
    """Images in descending order of their scores.

    Attributes:
        order: (N,) places of the images.
        starts: (K,) where each of the K different scores begins.
        present: (N,) whether each has the finding, in that order.
        scores: (K,) the different scores.
    """

    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    present: npt.NDArray[np.bool_]
    scores: Numbers


def ranked(scores: npt.NDArray[Any], present: npt.NDArray[np.bool_]) -> Ranked:
    """Rank images by their scores (N,); those of one score stand together."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    sorted_ = values[order]
    starts = np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])[: len(values)]
    return Ranked(order, starts, np.asarray(present)[order], sorted_[starts])


def counts(rank: Ranked, weights: Numbers | None = None) -> tuple[Numbers, Numbers]:
    """How many images with and without the finding have each score: two of (B, K).

    Args:
        rank: from ``ranked``.
        weights: (B, N) how often each image counts; None: once, with B = 1.
    """
    each = np.ones((1, len(rank.order))) if weights is None else weights[:, rank.order]
    with_it = np.add.reduceat(each * rank.present, rank.starts, axis=1)
    without = np.add.reduceat(each * ~rank.present, rank.starts, axis=1)
    return with_it, without


def auroc(positives: Numbers, negatives: Numbers) -> Numbers:
    """Area under the receiver's operating characteristic: the probability that an image with the
    finding scores above one without, ties counting half (Mann and Whitney, 1947).

    Args:
        positives: (B, K) images with the finding, of each score in descending order.
        negatives: (B, K) those without.

    Returns:
        (B,) in [0, 1]; NaN where all or none have it.

    Example:
        >>> rank = ranked([0.1, 0.4, 0.4, 0.8], np.array([False, False, True, True]))
        >>> auroc(*counts(rank)).tolist()
        [0.875]
    """
    all_, none = positives.sum(1), negatives.sum(1)
    below = none[:, None] - negatives.cumsum(1) + 0.5 * negatives
    return _ratio((positives * below).sum(1), all_ * none)


def average_precision(positives: Numbers, negatives: Numbers) -> Numbers:
    """Mean precision over the images with the finding, each at its own score.

    Args:
        positives: (B, K) images with the finding, of each score in descending order.
        negatives: (B, K) those without.

    Returns:
        (B,) in [0, 1]; NaN where none has it.
    """
    found = positives.cumsum(1)
    precision = _ratio(found, found + negatives.cumsum(1))
    total = (positives * np.nan_to_num(precision)).sum(1)
    return _ratio(total, positives.sum(1))


def best_f1(positives: Numbers, negatives: Numbers) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """The largest F1 that a threshold can give, (B,), and how many of the scores lie above it.

    Args:
        positives: (B, K) images with the finding, of each score in descending order.
        negatives: (B, K) those without.
    """
    found = positives.cumsum(1)
    called = found + negatives.cumsum(1)
    f1 = 2 * found / np.maximum(called + positives.sum(1, keepdims=True), 1)
    best = f1.argmax(1)
    return f1[np.arange(len(f1)), best], best + 1


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
