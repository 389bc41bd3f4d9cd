"""What is remembered of an image when it has been decoded: its form, and the values it holds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datamodules.decoding import Array, Decoded

Limits = tuple[float, float]

#: Pixels of an image that its quantiles are taken from: enough for the 0.5 % at either end.
_PIXELS = 4096
#: Share of an image's pixels below and above its quantiles, so that a few extreme ones mean nothing.
_TAIL = 0.005


class Form(NamedTuple):
    """What images of a set have in common with some others of it.

    Attributes:
        kind: of the file (PNG, NIfTI, DICOM CT); ``array`` in memory.
        dtype: of its numbers.
        shape: (*spatial, channels) as it will be shown.
        span: between which its values can lie, where it says so.
        unit: of its values, where it says so (HU).
        note: what the reader found worth saying.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    span: Limits | None = None
    unit: str = ""
    note: str = ""


class Glance(NamedTuple):
    """What is remembered of one image.

    Attributes:
        form: what it has in common with others.
        quantiles: 0.5 and 99.5 % of its finite pixels.
        extremes: the smallest and largest of them.
        limits: raw values that become 0 and 1; None: it does not say, nor does an option.
        spacing: mm along each spatial axis, where known.
        turned: it was turned to RAS.
    """

    form: Form
    quantiles: Limits
    extremes: Limits
    limits: Limits | None = None
    spacing: tuple[float, ...] | None = None
    turned: bool = False


def glance_of(decoded: Decoded, pixels: Array, limits: Limits | None) -> Glance:
    """What is remembered of an image.

    Args:
        decoded: the file.
        pixels: (*spatial, channels) that became of it.
        limits: its raw values that become 0 and 1.
    """
    form = Form(
        decoded.kind, pixels.dtype.name, pixels.shape, decoded.span, decoded.unit, decoded.note
    )
    return Glance(form, *_values(pixels), limits, decoded.spacing, decoded.turned)


def glance_at(image: Array, limits: Limits | None) -> Glance:
    """What is remembered of an image of an array, any shape."""
    form = Form("array", image.dtype.name, image.shape, limits)
    return Glance(form, *_values(image), limits)


def _values(pixels: Array) -> tuple[Limits, Limits]:
    """Quantiles and extremes of the finite pixels; NaN where there are none."""
    values = pixels.reshape(-1)
    sample = values[:: _stride(pixels.shape)]
    if np.issubdtype(pixels.dtype, np.floating):
        sample = sample[np.isfinite(sample)]
        values = values if np.isfinite(values).all() else values[np.isfinite(values)]
    if not len(sample):
        return (math.nan, math.nan), (math.nan, math.nan)
    sample = np.sort(sample)
    tail = int(_TAIL * len(sample))
    quantiles = float(sample[tail]), float(sample[-1 - tail])
    return quantiles, (float(values.min()), float(values.max()))


def _stride(shape: Sequence[int]) -> int:
    """Between sampled pixels; prime to the sides, so that it meets every row, column and channel."""
    stride = max(1, math.prod(shape) // _PIXELS)
    while any(math.gcd(stride, side) > 1 for side in shape):
        stride += 1
    return stride
