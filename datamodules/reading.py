"""How a decoded file becomes an image: its size, its channels, and which values are 0 and 1."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Spacing

from holdfast.datamodules.decoding import Array, Decoded, Unreadable
from holdfast.datamodules.formats.geometry import placed
from holdfast.datamodules.glance import SPANNED, UNSAID
from holdfast.datamodules.placing import Place

#: Shares of pixels that ``window=percentile`` maps to 0 and 1, as published for MR, which has no
#: unit.
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Reading:
    """How a decoded file becomes an image; None leaves it as it is.

    Args:
        size: sides of the image, (H, W) or (D, H, W), or one for all.
        fit: stretch (each side by itself), cover (scale to cover, cut what stands over), pad (scale
            to fit in, surround with the image's minimum) or crop (do not scale: cut or surround so,
            about the centre).
        channels: 1 makes colour grey (ITU-R 601), 3 repeats grey.
        window: raw values that become 0 and 1; ``file``: the display window that a DICOM file
            names; ``percentile``: its own 0.5 and 99.5 %; None: the span of its type, or where that
            is unknown the image set's own range.
        spacing: mm from pixel to pixel, to which a file that tells its own is resampled.
        around_roi: pixels around the image's roi that are kept, the rest cut off.
        range: raw values that become 0 and 1 in files that do not say what they span.
    """

    size: tuple[int, ...] | int | None = None
    fit: str = "stretch"
    channels: int | None = None
    window: tuple[float, float] | str | None = None
    spacing: float | None = None
    around_roi: int | None = None
    range: tuple[float, float] | None = None

    def apply(
        self, decoded: Decoded, roi: Decoded | None = None
    ) -> tuple[Array, tuple[float, float] | None]:
        """The image (*spatial, channels) in its file's type, and the values that become 0 and 1
        where it knows them; arguments as of ``placed``.
        """
        pixels, limits, _ = self.placed(decoded, roi)
        return pixels, limits

    def placed(
        self, decoded: Decoded, roi: Decoded | None = None
    ) -> tuple[Array, tuple[float, float] | None, Place]:
        """The image as ``apply`` has it, and where it lies in its file.

        First it is resampled, then cropped, then windowed, then brought to its size.

        Args:
            decoded: the file.
            roi: another of the same sides, not zero where ``around_roi`` is to look.

        Raises:
            Unreadable: it cannot be made so.
        """
        if self.window == "file" and decoded.display is not None:
            decoded = decoded._replace(pixels=decoded.display(), window=(0.0, 1.0), display=None)
        pixels = self._channels(decoded.pixels)
        place = Place.whole(
            pixels.shape[:-1],
            decoded.spacing,
            decoded.affine,
            turned=decoded.turned,
            scan=decoded.scan,
        )
        if self.spacing is not None:
            pixels = self._spaced(pixels, decoded, "bilinear")
            steps = [self.spacing / mm for mm in decoded.spacing or ()]
            place = place.resampled(pixels.shape[:-1], steps)
        if self.around_roi is not None and roi is not None:
            box = self._box(decoded, roi, self.around_roi)
            pixels = pixels[tuple(slice(*ends) for ends in box)]
            place = place.cropped(box)
        limits = self._limits(decoded, pixels)
        size = (
            (self.size,) * (pixels.ndim - 1)
            if isinstance(self.size, int)
            else self.size or pixels.shape[:-1]
        )
        if len(size) != pixels.ndim - 1:
            raise Unreadable(
                f"is {by(pixels.shape[:-1])}, which has other axes than data.size={list(size)}"
            )
        if size != pixels.shape[:-1]:
            place = fitted_place(place, size, self.fit)
            pixels = fitted(pixels, size, self.fit, darkest(pixels, decoded.inverted))
        return pixels, limits, place

    def suits(self, scales: Collection[str]) -> bool:
        """Whether values of these scales (``Form.scale``) can be shown alike.

        They can where each image is scaled by itself, or it is said what those span that do not
        say. A window suits these with any others, but not two scales that are known.
        """
        if self.window in ("file", "percentile") or self.range is not None:
            return True
        known = set(scales) if self.window is None else set(scales) - {UNSAID}
        return len(known) < 2

    def idle(self, scales: Collection[str]) -> str:
        """Which option does nothing for files of these scales, in words; empty: none."""
        if self.range is None or (self.window is None and set(scales) != {SPANNED}):
            return ""
        why = "all files say what they span" if self.window is None else "data.window holds for all"
        return f"data.range is not used: {why}"

    def _channels(self, pixels: Array) -> Array:
        have = pixels.shape[-1]
        if self.channels is None or self.channels == have:
            return pixels
        if self.channels == 3 and have == 1:
            return np.repeat(pixels, 3, axis=-1)
        if self.channels == 1 and have == 3:
            return _typed(
                pixels.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32),
                pixels.dtype,
            )
        raise Unreadable(f"has {have} channels, which cannot become {self.channels}")

    def _spaced(self, pixels: Array, decoded: Decoded, mode: str) -> Array:
        if decoded.spacing is None:
            raise Unreadable(
                "tells no spacing, as NIfTI and DICOM files can: leave data.spacing out"
            )
        spatial = pixels.ndim - 1
        image = MetaTensor(
            _channels_first(pixels), affine=np.diag([*decoded.spacing, *[1.0] * (4 - spatial)])
        )
        resampled = Spacing([self.spacing] * spatial, mode=mode, padding_mode="border")(image)
        return _typed(np.moveaxis(resampled.numpy(), 0, -1), pixels.dtype)

    def _box(self, decoded: Decoded, roi: Decoded, margin: int) -> list[tuple[int, int]]:
        """What the roi marks, and ``margin`` pixels around it, along each axis."""
        roi = placed(roi, decoded)
        if roi.pixels.shape[:-1] != decoded.pixels.shape[:-1]:
            raise Unreadable(
                f"is {by(decoded.pixels.shape[:-1])}, and its roi {by(roi.pixels.shape[:-1])}"
            )
        where = (roi.pixels != 0).any(-1, keepdims=True).astype(np.uint8)
        if self.spacing is not None:
            where = self._spaced(where, decoded, "nearest")
        if not where.any():
            raise Unreadable("has a roi that marks nothing")
        axes = range(where.ndim - 1)
        box = []
        for axis in axes:
            marked = np.flatnonzero(where[..., 0].any(axis=tuple({*axes} - {axis})))
            low, high = int(marked[0]) - margin, int(marked[-1]) + 1 + margin
            box.append((max(0, low), min(where.shape[axis], high)))
        return box

    def _limits(self, decoded: Decoded, pixels: Array) -> tuple[float, float] | None:
        """The raw values that become 0 and 1; the first is the larger where low values are
        bright.
        """
        ends = self._ends(decoded, pixels)
        if not decoded.inverted:
            return ends
        if ends is None:
            raise Unreadable(
                "is MONOCHROME1 and does not say what it spans: set data.window=[LOW,HIGH]"
            )
        return ends[1], ends[0]

    def _ends(self, decoded: Decoded, pixels: Array) -> tuple[float, float] | None:
        if self.window is None:
            return decoded.span or self.range
        if self.window == "percentile":
            low, high = np.nanpercentile(pixels, _PERCENTILES)
            return float(low), float(high if high > low else low + 1)
        if self.window == "file":
            if decoded.window is None:
                raise Unreadable("names no display window: set data.window=[LOW,HIGH]")
            return decoded.window
        return float(self.window[0]), float(self.window[1])


def _fit(old: Sequence[int], size: Sequence[int], fit: str) -> tuple[list[int], list[int]]:
    """The sides that an image is scaled to, and where the new one starts in it, padding below 0."""
    scales = [new / side for new, side in zip(size, old, strict=True)]
    scale = {"cover": max(scales), "pad": min(scales), "crop": 1.0}.get(fit)
    sides = list(size) if scale is None else [max(1, round(side * scale)) for side in old]
    starts = [
        (side - new) // 2 if side >= new else -((new - side) // 2)
        for side, new in zip(sides, size, strict=True)
    ]
    return sides, starts


def fitted_place(place: Place, size: Sequence[int], fit: str) -> Place:
    """Where an image lies that ``fitted`` has brought to other sides."""
    sides, starts = _fit(place.size, size, fit)
    return place.resized(sides).moved(size, starts)


def fitted(
    pixels: Array, size: Sequence[int], fit: str, padding_value: float | None = None
) -> Array:
    """An image of other sides, in the same type.

    Args:
        pixels: (*spatial, channels).
        size: the new sides.
        fit: as in ``Reading``.
        padding_value: what surrounds it; None: its smallest value.
    """
    sides, starts = _fit(pixels.shape[:-1], size, fit)
    result = pixels if tuple(sides) == pixels.shape[:-1] else _resampled(pixels, sides)
    cut, padding = [], []
    for side, new, start in zip(sides, size, starts, strict=True):
        first, before = max(0, start), max(0, -start)
        cut.append(slice(first, first + min(side, new)))
        padding.append((before, max(0, new - side) - before))
    value = darkest(pixels) if padding_value is None else padding_value
    return np.pad(result[tuple(cut)], [*padding, (0, 0)], constant_values=value)


def darkest(pixels: Array, inverted: bool = False) -> float:
    """The value that surrounds an image, for 0 would be water in CT: of its own, broken ones
    aside.
    """
    if not np.issubdtype(pixels.dtype, np.integer):
        pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return 0.0
    return float(pixels.max() if inverted else pixels.min())


def _resampled(pixels: Array, sides: list[int]) -> Array:
    images = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(np.float32))
    if len(sides) == 2:
        images = F.interpolate(images, sides, mode="bilinear", antialias=True)
    elif all(new <= old for new, old in zip(sides, pixels.shape[:-1], strict=True)):
        images = F.interpolate(images, sides, mode="area")  # torch has no antialiasing in 3D
    else:
        images = F.interpolate(images, sides, mode="trilinear")
    return _typed(np.moveaxis(images[0].numpy(), 0, -1), pixels.dtype)


def _channels_first(pixels: Array) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32))


def _typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers in a type, rounded where it is one of whole numbers."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.round(values), info.min, info.max).astype(dtype)


def by(sides: Sequence[int]) -> str:
    """Sides as in 32x48."""
    return "x".join(map(str, sides))
