"""Whether the scanner changes along a stream: movement between batches that no mix of classes
explains.

The mean that a batch shows to the first layer is linear in the mix of its classes. So under one
scanner batches of different classes differ within the span of the differences between class means;
what moves out of it is a change of scanner, site or stain. (The first layer, for nothing was
normalised before it, and scanner and class have hardly mixed there.)
"""

from typing import NamedTuple

import torch
from torch import Tensor

#: A channel's variance counts for at least this share of the largest: one that is constant on the
#: source has no scale.
_SMALLEST = 1e-6
#: Directions in which class means differ by less than this share of the largest difference are
#: none, but rounding.
_RANK = 1e-3
#: Added to the extent of the classes, in standard deviations of the source: smaller movements are
#: noise.
_FLOOR = 0.02


class Span(NamedTuple):
    """What mixes of classes explain of a layer's mean.

    Attributes:
        center: (channels,) mean of the class means.
        outside: (channels, channels) matrix that standardises a mean by the source and takes out
            what mixes explain.
        extent: how far classes lie apart, in standard deviations.
    """

    center: Tensor
    outside: Tensor
    extent: Tensor


def class_span(means: Tensor, variance: Tensor) -> Span:
    """What mixes of classes explain, and how far classes lie apart.

    Args:
        means: (C, channels) of the layer's input for each class of the source.
        variance: (channels,) of that input.
    """
    deviation = (
        torch.maximum(variance, _SMALLEST * variance.max())
        .clamp(min=torch.finfo(variance.dtype).tiny)
        .sqrt()
    )
    center = means.mean(0)
    differences = (means - center) / deviation
    _, sizes, directions = torch.linalg.svd(differences, full_matrices=False)
    directions = directions[sizes > _RANK * sizes.max()]
    outside = (torch.eye(len(center)).to(means) - directions.T @ directions) / deviation
    return Span(center, outside, 2 * differences.norm(dim=1).max() + _FLOOR)


class Movement(NamedTuple):
    """Running moments of what batches show outside the span.

    Attributes:
        mean: (channels,) mean over batches.
        square: mean squared norm.
        batches: how many were seen.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor


def no_movement(channels: int) -> Movement:
    """The state before the first batch."""
    return Movement(torch.zeros(channels), torch.zeros(()), torch.zeros(()))


def moved_by(past: Movement, seen: Tensor, span: Span) -> Movement:
    """The state after a batch that shows the (channels,) mean ``seen``; one that is not finite
    changes nothing.
    """
    out = span.outside @ (seen - span.center)
    finite = out.isfinite().all()
    out, rate = torch.where(finite, out, past.mean), finite / (past.batches + 1)
    square = torch.lerp(past.square, out.square().sum(), rate)
    return Movement(torch.lerp(past.mean, out, rate), square, past.batches + finite)


def scanner_change(movement: Movement, span: Span) -> Tensor:
    """How far batches move outside the span, two standard deviations of it over the extent of the
    classes.

    Returns:
        Scalar >= 0; 0 for fewer than two batches, or where classes span all channels.
    """
    variance = (movement.square - movement.mean.square().sum()).clamp(min=0)
    return (
        2 * (variance * movement.batches / (movement.batches - 1).clamp(min=1)).sqrt() / span.extent
    )
