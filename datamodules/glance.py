"""What is remembered of an image when it has been decoded: its form, and the values it holds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from holdfast.datamodules.decoding import Array, Decoded

Limits = tuple[float, float]

#: Pixels of an image that its quantiles are taken from: enough for the 0.5 % at either end.
_PIXELS = 4096
#: Share of an image's pixels below and above its quantiles, so that a few extreme ones mean
#: nothing.
_TAIL = 0.005

#: The scale of signed and floating-point numbers, which may be any.
UNSAID = "that do not say what they span"
#: That of unsigned ones, whose type or header says it.
SPANNED = "of unsigned numbers"


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

    @property
    def scale(self) -> str:
        """What its values are, in words; those of two scales cannot share a range."""
        if self.unit:
            return f"in {self.unit}"
        return UNSAID if self.span is None else SPANNED


class ImageGlance(NamedTuple):
    """What is remembered of one image.

    Attributes:
        form: what it has in common with others.
        quantiles: 0.5 and 99.5 % of its finite pixels.
        extremes: the smallest and largest of them.
        limits: raw values that become 0 and 1; None: it does not say, nor does an option.
        spacing: mm along each spatial axis, where known.
        turned: it was turned to RAS.
        finite: none of its pixels is NaN or infinite.
    """

    form: Form
    quantiles: Limits
    extremes: Limits
    limits: Limits | None = None
    spacing: tuple[float, ...] | None = None
    turned: bool = False
    finite: bool = True


def glance_of(decoded: Decoded, pixels: Array, limits: Limits | None) -> ImageGlance:
    """What is remembered of an image.

    Args:
        decoded: the file.
        pixels: (*spatial, channels) that became of it.
        limits: its raw values that become 0 and 1.
    """
    form = form_of(decoded, pixels)
    quantiles, extremes, finite = _values(pixels)
    return ImageGlance(form, quantiles, extremes, limits, decoded.spacing, decoded.turned, finite)


def form_of(decoded: Decoded, pixels: Array) -> Form:
    """What an image has in common with others.

    Args:
        decoded: the file.
        pixels: (*spatial, channels) that became of it.
    """
    return Form(
        decoded.kind, pixels.dtype.name, pixels.shape, decoded.span, decoded.unit, decoded.note
    )


def glance_at(image: Array, limits: Limits | None) -> ImageGlance:
    """What is remembered of an image of an array, any shape."""
    form = Form("array", image.dtype.name, image.shape, limits)
    quantiles, extremes, finite = _values(image)
    return ImageGlance(form, quantiles, extremes, limits, finite=finite)


def _values(pixels: Array) -> tuple[Limits, Limits, bool]:
    """Quantiles and extremes of the finite pixels, NaN where there are none; and whether all
    are.
    """
    values = pixels.reshape(-1)
    sample, finite = values[:: _stride(pixels.shape)], True
    if np.issubdtype(pixels.dtype, np.floating):
        sample = sample[np.isfinite(sample)]
        sound = np.isfinite(values)
        finite = bool(sound.all())
        values = values if finite else values[sound]
    if not len(sample):
        return (math.nan, math.nan), (math.nan, math.nan), finite
    sample = np.sort(sample)
    tail = int(_TAIL * len(sample))
    quantiles = float(sample[tail]), float(sample[-1 - tail])
    return quantiles, (float(values.min()), float(values.max())), finite


def _stride(shape: Sequence[int]) -> int:
    """Between sampled pixels; prime to the sides, so that it meets every row, column and
    channel.
    """
    stride = max(1, math.prod(shape) // _PIXELS)
    while any(math.gcd(stride, side) > 1 for side in shape):
        stride += 1
    return stride
