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
    """What the source's classes look like.

    Attributes:
        mean: (C, D) in feature space.
        var: (C, D) variances there.
        shares: (101, C) quantiles of what images hold of each, where they hold several; None: not
            known.
    """

    mean: Tensor
    var: Tensor
    shares: Tensor | None = None


class Seen(NamedTuple):
    """Running moments of the classes that a model finds, or that each of several does: then all
    have a leading dimension of models.

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
    """The state before the first batch, of one model or of any number."""
    zeros = torch.zeros(num_classes, width, device=device)
    none = zeros[:, 0].clone()
    return Seen(none, zeros, zeros, none.clone(), none[0].clone())


def seen_with(past: Seen, logits: Tensor, features: Tensor, memory: float) -> Seen:
    """The state after another batch, of all processes, in O(N·C·D), without a read-back.

    Rows that are not finite, or whose features are a hundred times as long as the batch's median,
    are left out.

    Args:
        past: the state.
        logits: (N, C), or (K, N, C) of several models.
        features: (N, D), or (K, N, D).
        memory: images that the past of a class counts for at most; of the marginal, as many for
            each class. So what was learned of a class outlives a stretch without it.
    """
    features = features.detach().float()
    lengths = features.norm(dim=-1)
    usable = torch.isfinite(logits).all(-1) & lengths.isfinite()
    if lengths.shape[-1]:
        usable &= ~(lengths > _OUTLYING * lengths.nanmedian(-1, keepdim=True).values)
    row = usable[..., None]
    features = torch.where(row, features, 0.0)
    # Not F.one_hot, which reads back to the host on a CPU.
    classes = torch.arange(logits.shape[-1], device=logits.device)
    member = ((logits.argmax(-1, keepdim=True) == classes) & row).float()
    p = torch.where(row, logits.float(), 0.0).softmax(-1) * row
    entropy = torch.special.entr(p).sum((-2, -1))[..., None].expand(*p.shape[:-2], len(classes))
    moments = member.mT @ torch.cat([features, features.square()], -1)
    each = [member.sum(-2), p.sum(-2), entropy]
    sums = total_of_all(torch.cat([torch.stack(each, -1), moments], -1))
    number, total, squares = torch.split(sums, [3, *2 * [features.shape[-1]]], -1)
    kept = past.counts.clamp(max=memory)
    counts = kept + number[..., 0]
    per_image = 1 / counts.clamp(min=1e-12)[..., None]
    share = kept[..., None] * per_image
    window = memory * len(classes)
    fade = (window / past.marginal.sum(-1).clamp(min=window)).clamp(max=1.0)
    return Seen(
        counts,
        past.mean * share + total * per_image,
        past.square * share + squares * per_image,
        past.marginal * fade[..., None] + number[..., 1],
        past.entropy * fade + number[..., 0, 2],
    )


def divergence(seen: Seen, source: Reference, prior: float) -> Tensor:
    """How far the classes that a model finds lie from the source's, in nats per feature.

    Args:
        seen: running moments of the model's classes.
        source: the source's classes.
        prior: images by which a class is drawn to the source's.

    Returns:
        Scalar >= 0, or (K,) of several models; 0 before anything was seen.
    """
    floor = _LEAST_VARIANCE * source.var.mean(0) + 1e-6
    expected = source.var + floor
    weight = (seen.counts / (seen.counts + prior))[..., None]
    moved = (seen.mean - source.mean) * weight
    var = (seen.square - seen.mean.square()).clamp(min=0) + floor
    ratio = torch.lerp(expected, var, weight) / expected
    each = (ratio + moved.square() / expected - 1 - ratio.log()).mean(-1) / 2
    return each.sum(-1) / weight.sum((-2, -1)).clamp(min=1e-6)


def information(seen: Seen) -> Tensor:
    """Mutual information of image and prediction over ln C: 0 where all images get one answer, or
    where no answer is sure; 1 where sure answers are evenly spread.

    Args:
        seen: the model's running moments.

    Returns:
        Scalar in [0, 1], or (K,) of several models; 0 before anything was seen.
    """
    total = seen.marginal.sum(-1, keepdim=True).clamp(min=1e-12)
    spread = torch.special.entr(seen.marginal / total).sum(-1)
    bits = (spread - seen.entropy / total[..., 0]).clamp(min=0)
    return bits / math.log(max(seen.marginal.shape[-1], 2))


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
        Scalar in [0, 1], or (K,) of several models; 0 before anything was seen.
    """
    total = seen.marginal.sum(-1, keepdim=True)
    marginal = seen.marginal / total.clamp(min=1)
    too_many = (marginal - high).clamp(min=0).sum(-1)
    too_few = ((low - marginal).clamp(min=0) * (total > 0)).sum(-1)
    return torch.maximum(too_many, too_few)
