"""Masks in memory or in files, and what is counted of them."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.tta.errors import InputError

#: Parts of equal size that images are put into by the share of their foreground, where a stream or
#: a bootstrap asks for kinds of images.
_PARTS = 3


@runtime_checkable
class MaskFiles(Protocol):
    """Masks that stay in files, as if they were one array (N, *spatial) of classes."""

    def __len__(self) -> int: ...

    def read(
        self, rows: npt.NDArray[np.int64], lost: dict[int, str] | None = None
    ) -> npt.NDArray[np.int64]:
        """(B, *spatial) classes, ``UNLABELLED`` where a pixel counts for nothing.

        Args:
            rows: which.
            lost: places in ``rows`` that are not read; is filled with the reason for each that
                cannot be. None: such a mask is an error.
        """
        ...

    def subset(self, rows: npt.NDArray[Any]) -> "MaskFiles":
        """Some of the masks."""
        ...

    def renumbered(self, table: npt.NDArray[np.int64]) -> "MaskFiles":
        """The masks with other numbers: class c becomes ``table[c]``, and the last entry stands for
        ``UNLABELLED``.
        """
        ...

    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether an image has a mask."""
        ...

    def shares(self, num_classes: int) -> npt.NDArray[np.float64]:
        """As ``shares_of``."""
        ...


#: Masks in memory, (N, *spatial) integers, or in files.
Masks = npt.NDArray[Any] | MaskFiles


def read_masks(
    masks: Masks, rows: npt.NDArray[np.int64], lost: dict[int, str] | None = None
) -> Tensor:
    """Masks (B, *spatial) as int64; arguments as of ``MaskFiles.read``."""
    read = masks[rows] if isinstance(masks, np.ndarray) else masks.read(rows, lost)
    return torch.from_numpy(np.ascontiguousarray(read).astype(np.int64))


def subset_of(masks: Masks, rows: npt.NDArray[Any]) -> Masks:
    """Some of the masks."""
    return masks[rows] if isinstance(masks, np.ndarray) else masks.subset(rows)


def renumbered(masks: Masks, table: npt.NDArray[np.int64]) -> Masks:
    """Masks with other numbers: class c becomes ``table[c]``, and the last entry stands for
    ``UNLABELLED``.
    """
    if not isinstance(masks, np.ndarray):
        return masks.renumbered(table)
    return table[masks.astype(np.int64)].astype(np.int16)


def have_masks(masks: Masks) -> npt.NDArray[np.bool_]:
    """(N,) whether any pixel of an image has a class."""
    if not isinstance(masks, np.ndarray):
        return masks.known()
    if masks.dtype.kind == "u":  # has no number for pixels that do not count
        return np.ones(len(masks), dtype=np.bool_)
    return np.array([bool((mask != UNLABELLED).any()) for mask in masks], dtype=np.bool_)


def shares_of(masks: Masks, num_classes: int) -> npt.NDArray[np.float64]:
    """(N, C) share of each class among an image's pixels that have one; NaN where none has.

    Raises:
        InputError: a pixel has none of the classes.
    """
    if not isinstance(masks, np.ndarray):
        return masks.shares(num_classes)
    shares = np.full((len(masks), num_classes), np.nan)
    known = have_masks(masks)
    for row in np.flatnonzero(known):
        values = read_masks(masks, np.array([row])).numpy().ravel()
        if values.max() >= num_classes or values.min() < UNLABELLED:
            odd = int(values.max() if values.max() >= num_classes else values.min())
            raise InputError(
                f"the mask of image {row} holds {odd}, and there are {num_classes} classes, "
                "numbered from 0: map its values, data.labels={VALUE: CLASS, OTHER: null}"
            )
        counts = np.bincount(values[values != UNLABELLED], minlength=num_classes)
        shares[row] = counts / counts.sum()
    return shares


def parts_by_size(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) a third for each image, by the share of its foreground: all classes but the first.

    Args:
        shares: (N, C), as ``shares_of``.
    """
    foreground = 1 - shares[:, 0]
    known = np.flatnonzero(np.isfinite(foreground))
    parts = np.full(len(shares), UNLABELLED, dtype=np.int64)
    order = known[np.argsort(foreground[known], kind="stable")]
    parts[order] = np.arange(len(order)) * _PARTS // max(len(order), 1)
    return parts
