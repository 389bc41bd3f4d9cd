"""How well a model fits a stream without labels: evidence by which the guard shares out its trust.

A model is believed as far as what it calls a class looks like that class did at the source. Its
*divergence* is the Kullback-Leibler divergence, per feature and in nats, from the source's classes
to the classes that the model finds in the stream, each taken as a Gaussian with independent
features:

    divergence = Σ_c KL(N(m_c, v_c) ‖ N(m⁰_c, v⁰_c)) / Σ_c n_c / (n_c + prior)

Classes count alike, so none needs its share of the source. A class is drawn to the source's by as
many images as ``prior`` says, so one that was hardly seen says hardly anything. A model that gives
nearly all images one answer comes near to that class whatever the images are. So what counts is how
much its answers tell about images for how far its classes lie, by ratios that need no level:

    share ∝ (hint · ((I / ln C + floor) / (divergence + floor))^sharpness)^looks · told
    I = H(mean p) − mean H(p)

What is said of the order of arrival, and of how common the classes are, is a ``hint``
(``callbacks.guard.experts``). It counts beside that, and so does what labels have ``told``
(``callbacks.labelled``). Nothing is fitted to a checkpoint.

A batch changes the classes that are in it and no others, so it costs what its images do, however
many classes there are.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from torch import Tensor

from holdfast.callbacks.guard.heard import Array
from holdfast.tta.step import Candidate

#: Features so many times as long as the batch's median come from a broken image, and would outweigh
#: all others for long.
_OUTLYING = 100.0
#: A feature's variance within a class counts for at least this share of its mean over classes: a
#: class on which a feature is constant (a unit that never fires) has no scale of its own.
_LEAST_VARIANCE = 0.05
#: What of ``Seen`` is an array.
_KEPT = ("counts", "mean", "square", "marginal")


class Reference:
    """What the source's classes look like.

    Args:
        mean: (C, D) in feature space.
        var: (C, D) variances there.
        shares: (101, C) quantiles of what images hold of each, where they hold several; None: not
            known.

    Attributes:
        floor: (D,) what is added to all variances.
        expected: (C, D) the source's variances with it.
        known: (C,) of which classes the source has images, of those that exclude each other.
    """

    def __init__(self, mean: ArrayLike, var: ArrayLike, shares: Tensor | None = None) -> None:
        self.mean, self.var = _on_host(mean), _on_host(var)
        self.shares = None if shares is None else shares.detach().cpu()
        self.floor: Array = _LEAST_VARIANCE * self.var.mean(0) + np.float32(1e-6)
        self.expected: Array = self.var + self.floor
        self.known = self.var.any(1) | (shares is not None)


class Seen:
    """Running moments of the classes that one model finds.

    Args:
        num_classes: C.
        width: D of the features.
        memory: images that the past of a class counts for at most; of the marginal, as many for
            each class. So what was learned of a class outlives a stretch without it.
        prior: images by which a class is drawn to the source's.
        source: the source's classes; None: the divergence is 0.

    Attributes:
        counts: (C,) effective number of images.
        mean: (C, D) mean features.
        square: (C, D) mean squared features.
        marginal: (C,) summed probabilities of the last images, whatever their class.
        entropy: summed entropy of the same predictions, in nats.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        memory: float,
        prior: float,
        source: Reference | None = None,
    ) -> None:
        self.memory, self.prior, self.source = memory, prior, source
        self.counts = np.zeros(num_classes)
        self.mean: Array = np.zeros((num_classes, width), np.float32)
        self.square = np.zeros_like(self.mean)
        self.marginal = np.zeros(num_classes)
        self.entropy = 0.0
        self._apart = np.zeros(num_classes)

    def take(self, logits: Array, features: Array) -> None:
        """Take in a batch, in O(N·(C + D)) for few classes and O(N²·D) at most.

        Rows that are not finite, or whose features are a hundred times as long as the batch's
        median, are left out.

        Args:
            logits: (N, C).
            features: (N, D).
        """
        rows = _usable(logits, features)
        logits, features = self._of_known(logits[rows]), features[rows]
        if not len(logits):
            return
        p = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
        p /= p.sum(1, keepdims=True)
        self._remember(p.sum(0), entr(p).sum())
        labels = logits.argmax(1)
        present, number = np.unique(labels, return_counts=True)
        member = (labels == present[:, None]).astype(np.float32)
        kept = np.minimum(self.counts, self.memory)
        before, self.counts = self.counts, kept.copy()
        self.counts[present] += number
        share = (kept[present] / self.counts[present]).astype(np.float32)[:, None]
        new = member / self.counts[present].astype(np.float32)[:, None]
        self.mean[present] = self.mean[present] * share + new @ features
        self.square[present] = self.square[present] * share + new @ np.square(features)
        changed = before != self.counts
        changed[present] = True
        self._compare(np.flatnonzero(changed))

    def _of_known(self, logits: Array) -> Array:
        """Answers as if there were no classes of which the source has no images: nobody knows what
        these look like, so they speak neither for nor against a model.
        """
        if self.source is None or self.source.known.all() or not self.source.known.any():
            return logits
        return np.where(self.source.known, logits, -np.inf)

    @property
    def divergence(self) -> float:
        """How far the classes that the model finds lie from the source's, in nats per feature: at
        least 0, and 0 before anything was seen.
        """
        weight = self.counts / (self.counts + self.prior)
        return float(self._apart.sum() / max(weight.sum(), 1e-6))

    @property
    def information(self) -> float:
        """Mutual information of image and prediction over ln C: 0 where all images get one answer,
        or where no answer is sure; 1 where sure answers are evenly spread.
        """
        total = max(self.marginal.sum(), 1e-12)
        bits = entr(self.marginal / total).sum() - self.entropy / total
        classes = len(self.marginal) if self.source is None else int(self.source.known.sum())
        return float(max(bits, 0.0) / math.log(max(classes, 2)))

    def outside(self, low: NDArray[Any], high: NDArray[Any]) -> float:
        """Share of the model's answers that must be wrong if the true shares of the classes lie
        within bounds: from 0 to 1, and 0 before anything was seen.

        Args:
            low: (C,) least true share of each class.
            high: (C,) largest.
        """
        total = self.marginal.sum()
        if not total:
            return 0.0
        marginal = self.marginal / max(total, 1.0)
        too_many, too_few = marginal - high, low - marginal
        return float(max(too_many.clip(0).sum(), too_few.clip(0).sum()))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next numbers depend on, and nothing of the settings."""
        kept = {name: torch.from_numpy(getattr(self, name).copy()) for name in _KEPT}
        return {**kept, "entropy": float(self.entropy)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in _KEPT:
            setattr(self, name, state[name].cpu().numpy().copy())
        self.entropy = state["entropy"]
        self._compare(np.flatnonzero(self.counts))

    def _remember(self, marginal: NDArray[Any], entropy: float) -> None:
        window = self.memory * len(self.marginal)
        fade = min(window / max(self.marginal.sum(), window), 1.0)
        self.marginal = self.marginal * fade + marginal
        self.entropy = self.entropy * fade + entropy

    def _compare(self, classes: NDArray[np.intp]) -> None:
        """Hold some classes against the source's again."""
        if self.source is None:
            return
        counts = self.counts[classes].astype(np.float32)[:, None]
        weight = counts / (counts + np.float32(self.prior))
        mean, square, expected = (
            of[classes] for of in (self.mean, self.square, self.source.expected)
        )
        moved = (mean - self.source.mean[classes]) * weight
        var = (square - np.square(mean)).clip(0) + self.source.floor
        ratio = (expected + weight * (var - expected)) / expected
        each = ratio + np.square(moved) / expected - 1 - np.log(ratio)
        self._apart[classes] = each.mean(1) / 2


def shares(
    votes: Mapping[Candidate, float], looks: float, told: Mapping[Candidate, float] | None = None
) -> dict[Candidate, float]:
    """How much each model is trusted; sums to 1.

    Args:
        votes: what a look adds to the logarithm of each one's share, by name; at least one.
        looks: how many looks count.
        told: what labels add to it, by name; None: nothing.

    Example:
        >>> votes = {"source": -2 * math.log(0.1), "batch": -2 * math.log(0.2)}
        >>> {name: round(share, 6) for name, share in shares(votes, looks=1).items()}
        {'source': 0.8, 'batch': 0.2}
    """
    labels = told or {}
    speaks = {name: looks * vote + labels.get(name, 0.0) for name, vote in votes.items()}
    best = max(speaks.values())
    weights = {name: math.exp(value - best) for name, value in speaks.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _usable(logits: Array, features: Array) -> NDArray[np.bool_]:
    """(N,) rows that are finite and no outliers."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(features, axis=1)
    usable = np.isfinite(logits).all(1) & np.isfinite(lengths)
    if not usable.any():
        return usable
    known = np.isfinite(lengths)
    most = _OUTLYING * np.median(lengths[known])
    return usable & ~(np.where(known, lengths, 0.0) > most)


def _on_host(values: ArrayLike) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.array(values, np.float32)
