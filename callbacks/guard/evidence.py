"""How well a model fits a stream without labels: evidence by which the guard shares out its trust.

A model is believed as far as what it calls a class looks like that class did at the source. Its
*divergence* is the Kullback-Leibler divergence, per feature and in nats, from the source's classes
to the classes that the model finds in the stream, each taken as a Gaussian with independent
features:

    divergence = Σ_c KL(N(m_c, v_c) ‖ N(m⁰_c, v⁰_c)) / Σ_c n_c / (n_c + prior)

Classes count alike, so none needs its share of the source. A class is drawn to the source's by as
many images as ``prior`` says, so one that was hardly seen says hardly anything. Shares of trust
compare divergences by their ratio, so they need no level that depends on a network or on data;
beyond the farthest that the checkpoint's own streams went, all are equally far. A little is added
for what predictions tell about images, so that of several that are lost one is not believed for
giving all images one answer:

    share ∝ exp(sharpness · looks · (information · I / ln C − ln(min(divergence, far) + floor)))
    I = H(mean p) − mean H(p)
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.tta.distributed import total_of_all

#: Features so many times as long as the batch's median come from a broken image, and would outweigh
#: all others for long.
_OUTLYING = 100.0
#: A feature's variance within a class counts for at least this share of its mean over classes: a
#: class on which a feature is constant (a unit that never fires) has no scale of its own.
_LEAST_VARIANCE = 0.05


class Reference(NamedTuple):
    """What the source's classes look like in feature space: means (C, D) and variances (C, D)."""

    mean: Tensor
    var: Tensor


class Seen(NamedTuple):
    """Running moments of the classes that a model finds.

    Attributes:
        counts: (C,) effective number of images.
        mean: (C, D) mean features.
        square: (C, D) mean squared features.
        marginal: (C,) summed probabilities of the last images, whatever their class.
        entropy: summed entropy of the same predictions, in nats.
    """

    counts: Tensor
    mean: Tensor
    square: Tensor
    marginal: Tensor
    entropy: Tensor


def nothing_seen(num_classes: int, width: int, device: torch.device | str = "cpu") -> Seen:
    """The state before the first batch."""
    zeros = torch.zeros(num_classes, width, device=device)
    none = zeros[:, 0].clone()
    return Seen(none, zeros, zeros, none.clone(), none[0].clone())


def seen_with(past: Seen, logits: Tensor, features: Tensor, memory: float) -> Seen:
    """The state after another batch, of all processes, in O(N·C·D), without a read-back.

    Rows that are not finite, or whose features are a hundred times as long as the batch's median,
    are left out.

    Args:
        past: the state.
        logits: (N, C).
        features: (N, D).
        memory: images that the past of a class counts for at most; of the marginal, as many for
            each class. So what was learned of a class outlives a stretch without it.
    """
    features = features.detach().float()
    lengths = features.norm(dim=1)
    usable = torch.isfinite(logits).all(1) & lengths.isfinite()
    usable &= ~(lengths > _OUTLYING * lengths.nanmedian())
    features = torch.where(usable[:, None], features, 0.0)
    # Not F.one_hot, which reads back to the host on a CPU.
    classes = torch.arange(logits.shape[1], device=logits.device)
    member = ((logits.argmax(1)[:, None] == classes) & usable[:, None]).float()
    p = torch.where(usable[:, None], logits.float(), 0.0).softmax(1) * usable[:, None]
    entropy = torch.special.entr(p).sum().expand(len(classes))
    each = [member.sum(0), p.sum(0), entropy]
    sums = [torch.stack(each, 1), member.T @ features, member.T @ features.square()]
    widths = [3, features.shape[1], features.shape[1]]
    number, total, squares = torch.split(total_of_all(torch.cat(sums, 1)), widths, 1)
    kept = past.counts.clamp(max=memory)
    counts = kept + number[:, 0]
    share = (kept / counts.clamp(min=1e-12))[:, None]
    per_image = 1 / counts.clamp(min=1e-12)[:, None]
    window = memory * len(counts)
    fade = (window / past.marginal.sum().clamp(min=window)).clamp(max=1.0)
    return Seen(
        counts,
        past.mean * share + total * per_image,
        past.square * share + squares * per_image,
        past.marginal * fade + number[:, 1],
        past.entropy * fade + number[0, 2],
    )


def divergence(seen: Seen, source: Reference, prior: float) -> Tensor:
    """How far the classes that a model finds lie from the source's, in nats per feature.

    Args:
        seen: running moments of the model's classes.
        source: the source's classes.
        prior: images by which a class is drawn to the source's.

    Returns:
        Scalar >= 0; 0 before anything was seen.
    """
    floor = _LEAST_VARIANCE * source.var.mean(0) + 1e-6
    expected = source.var + floor
    weight = (seen.counts / (seen.counts + prior))[:, None]
    moved = (seen.mean - source.mean) * weight
    var = (seen.square - seen.mean.square()).clamp(min=0) + floor
    var = torch.lerp(expected, var, weight)
    each = ((var + moved.square()) / expected - 1 - (var / expected).log()).mean(1) / 2
    return each.sum() / weight.sum().clamp(min=1e-6)


def information(seen: Seen) -> Tensor:
    """Mutual information of image and prediction over ln C: 0 where all images get one answer, or
    where no answer is sure; 1 where sure answers are evenly spread.

    Args:
        seen: the model's running moments.

    Returns:
        Scalar in [0, 1]; 0 before anything was seen.
    """
    total = seen.marginal.sum().clamp(min=1e-12)
    spread = torch.special.entr(seen.marginal / total).sum()
    bits = (spread - seen.entropy / total).clamp(min=0)
    return bits / math.log(max(len(seen.marginal), 2))


def shares(votes: Mapping[str, float], looks: float) -> dict[str, float]:
    """How much each model is trusted; sums to 1.

    Args:
        votes: what a look adds to the logarithm of each one's share, by name; at least one.
        looks: how many looks count.

    Example:
        >>> votes = {"source": -2 * math.log(0.1), "batch": -2 * math.log(0.2)}
        >>> {name: round(share, 6) for name, share in shares(votes, looks=1).items()}
        {'source': 0.8, 'batch': 0.2}
    """
    best = max(votes.values())
    weights = {name: math.exp(looks * (vote - best)) for name, vote in votes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def outside(seen: Seen, low: Tensor, high: Tensor) -> Tensor:
    """Share of a model's answers that must be wrong if the true shares of the classes lie within
    bounds.

    Args:
        seen: its running moments.
        low: (C,) least true share of each class.
        high: (C,) largest.

    Returns:
        Scalar in [0, 1]; 0 before anything was seen.
    """
    marginal = seen.marginal / seen.marginal.sum().clamp(min=1)
    too_many = (marginal - high).clamp(min=0).sum()
    too_few = (low - marginal).clamp(min=0).sum() * (seen.marginal.sum() > 0)
    return torch.maximum(too_many, too_few)
