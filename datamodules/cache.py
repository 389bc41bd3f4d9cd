"""Decoded images in memory that forked workers share."""

import mmap
from typing import Any

import numpy as np

from holdfast.datamodules.decoding import Array
from holdfast.datamodules.glance import Limits


class Cache:
    """Decoded images: what one process decodes, all have.

    Args:
        count: images.
        shape: of an image.
        dtype: of an image; those of another type or shape are not kept.
        limit: bytes at most; the first images, as many as fit, are kept.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any], limit: float
    ) -> None:
        self.shape, self.dtype, self.limit = shape, dtype, limit
        self.capacity = int(min(count, limit // (int(np.prod(shape)) * dtype.itemsize)))
        # Anonymous shared memory, for /dev/shm, where torch shares tensors, is 64 MB in most
        # containers.
        self.pixels = _shared((self.capacity, *shape), dtype)
        self.limits = _shared((self.capacity, 2), np.dtype(np.float64))
        self.filled = _shared((self.capacity,), np.dtype(np.bool_))

    def get(self, place: int) -> tuple[Array, Limits | None] | None:
        """An image and the values that become 0 and 1 in it; None: it is not kept."""
        if place >= self.capacity or not self.filled[place]:
            return None
        low, high = self.limits[place].tolist()
        return self.pixels[place], None if low != low else (low, high)

    def put(self, place: int, pixels: Array, limits: Limits | None) -> None:
        """Keep an image, if there is room for it."""
        if place < self.capacity and (pixels.dtype, pixels.shape) == (self.dtype, self.shape):
            self.pixels[place] = pixels
            self.limits[place] = (np.nan, np.nan) if limits is None else limits
            self.filled[place] = True  # last, for another process may look in between


def _shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, int(np.prod(shape))).reshape(shape)
