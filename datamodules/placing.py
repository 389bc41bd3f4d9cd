"""Where the pixels of a network's image lie in its file: masks come in by it, predictions go back.

All that reading does to an image's sides (resampling, cropping, resizing, cutting, surrounding)
maps each axis by a straight line, so that one pair of numbers an axis says it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.datamodules.formats.decoded import Array, Scan


@dataclass(frozen=True)
class Place:
    """Where a network's image lies in its file.

    Along an axis, pixel k of the image is at ``scale * k + offset`` of the file's, counted between
    the middles of pixels; what lies outside of ``sides`` is padding.

    Attributes:
        size: sides of the image, (H, W) or (D, H, W).
        sides: of the file's pixels, volumes turned to RAS, (D, H, W).
        scale: along each axis.
        offset: along each axis.
        spacing: mm between the file's pixels along each axis, where it tells.
        affine: (4, 4), from the file's voxels (x, y, z), turned to RAS, to mm, where it tells.
        path: of the file; None: the image lies in memory.
        turned: the file stores its volume in another orientation.
        scan: of the file, where it is DICOM.

    Example:
        >>> place = Place.whole((4, 6)).cropped([(1, 3), (0, 6)])
        >>> place.mask(np.arange(24).reshape(4, 6))
        array([[ 6,  7,  8,  9, 10, 11],
               [12, 13, 14, 15, 16, 17]])
        >>> place.back(torch.ones(2, 6)).sum(1).tolist()
        [0.0, 6.0, 6.0, 0.0]
    """

    size: tuple[int, ...]
    sides: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    path: Path | None = None
    turned: bool = False
    scan: Scan | None = None

    @classmethod
    def whole(
        cls,
        sides: Sequence[int],
        spacing: tuple[float, ...] | None = None,
        affine: Array | None = None,
        turned: bool = False,
        scan: Scan | None = None,
    ) -> "Place":
        """An image that is its file as it is."""
        ones = (1.0,) * len(sides)
        zeros = (0.0,) * len(sides)
        whole = tuple(sides)
        return cls(whole, whole, ones, zeros, spacing, affine, turned=turned, scan=scan)

    @property
    def shown_spacing(self) -> tuple[float, ...] | None:
        """mm between the image's pixels along each axis, where known."""
        if self.spacing is None:
            return None
        return tuple(float(mm * scale) for mm, scale in zip(self.spacing, self.scale, strict=True))

    def resampled(self, size: Sequence[int], steps: Sequence[float]) -> "Place":
        """The image with pixels ``steps`` apart, the first where it was."""
        return self._then(size, steps, [0.0] * len(size))

    def cropped(self, box: Sequence[tuple[int, int]]) -> "Place":
        """The image cut down to ``(start, stop)`` along each axis."""
        size = [stop - start for start, stop in box]
        return self._then(size, [1.0] * len(box), [float(start) for start, _ in box])

    def resized(self, size: Sequence[int]) -> "Place":
        """The image with other sides, its borders where they were."""
        steps = [old / new for old, new in zip(self.size, size, strict=True)]
        return self._then(size, steps, [step / 2 - 0.5 for step in steps])

    def moved(self, size: Sequence[int], starts: Sequence[int]) -> "Place":
        """The image from ``starts`` on, which below 0 are padding, with other sides."""
        return self._then(size, [1.0] * len(size), [float(start) for start in starts])

    def _then(
        self, size: Sequence[int], steps: Sequence[float], starts: Sequence[float]
    ) -> "Place":
        old = list(zip(self.scale, self.offset, strict=True))
        offset = [scale * start + first for (scale, first), start in zip(old, starts, strict=True)]
        scale = [scale * step for (scale, _), step in zip(old, steps, strict=True)]
        return replace(self, size=tuple(size), scale=tuple(scale), offset=tuple(offset))

    def mask(self, mask: npt.NDArray[np.generic], outside: int = 0) -> npt.NDArray[np.generic]:
        """A mask of the file (*sides) as one of the image (*size): of each pixel the nearest.

        Args:
            mask: of whole numbers.
            outside: what stands in the padding.
        """
        places, inside = self._nearest()
        return _picked(mask, places, inside, outside)

    def back(self, values: Tensor, outside: float = 0.0, linear: bool = False) -> Tensor:
        """What a network says of the image, in the place of the file's pixels.

        Args:
            values: (*size), or (channels, *size) with ``linear``.
            outside: what stands where the image shows nothing of the file.
            linear: between pixels, for probabilities; else of each pixel the nearest, for classes.

        Returns:
            (*sides), or (channels, *sides), on the device of the values.
        """
        for axis in range(len(self.sides)):
            values = self._back_along(axis, values, outside, linear)
        return values

    def _back_along(self, axis: int, values: Tensor, outside: float, linear: bool) -> Tensor:
        dim, last = axis - len(self.sides), self.size[axis] - 1
        steps = np.arange(self.sides[axis])
        where = (steps - self.offset[axis]) / self.scale[axis]
        seen = torch.from_numpy((where >= -0.5) & (where <= last + 0.5)).to(values.device)
        shape = [1] * values.dim()
        shape[dim] = -1
        if linear:
            low = np.clip(np.floor(where), 0, max(last - 1, 0)).astype(np.int64)
            share = torch.from_numpy(np.clip(where - low, 0, 1)).to(values).reshape(shape)
            first, second = (
                values.index_select(dim, torch.from_numpy(at).to(values.device))
                for at in (low, np.minimum(low + 1, last))
            )
            found = first + share * (second - first)
        else:
            # Half a step is no one's: downwards, so that no rounding of floats decides.
            at = np.clip(np.ceil(where - 0.5 - 1e-9), 0, last).astype(np.int64)
            found = values.index_select(dim, torch.from_numpy(at).to(values.device))
        return found.where(seen.reshape(shape), torch.as_tensor(outside).to(found))

    def _nearest(self) -> tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.bool_]]]:
        """Along each axis the file's pixel of each of the image's, and whether there is one."""
        places, inside = [], []
        axes = zip(self.size, self.sides, self.scale, self.offset, strict=True)
        for size, side, scale, offset in axes:
            where = scale * np.arange(size) + offset
            at = np.ceil(where - 0.5 - 1e-9).astype(np.int64)
            places.append(np.clip(at, 0, side - 1))
            inside.append((where > -1) & (where < side))
        return places, inside


def _picked(
    mask: npt.NDArray[np.generic],
    places: Sequence[npt.NDArray[np.int64]],
    inside: Sequence[npt.NDArray[np.bool_]],
    outside: int,
) -> npt.NDArray[np.generic]:
    result = mask[np.ix_(*places)]
    for axis, part in enumerate(inside):
        if not part.all():
            result[(slice(None),) * axis + (~part,)] = outside
    return result
