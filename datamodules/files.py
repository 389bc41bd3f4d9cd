"""Images that stay in files until they are asked for, decoded in whichever process asks, and kept where they fit."""

import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules.decoding import Array, Decoded, Unreadable, decode
from datamodules.reading import Reading, by
from tta.errors import InputError

_CHUNK = 32  # files that a thread checks in one go


class _Cache:
    """Decoded images in memory that forked workers share: what one of them decodes, all have.

    Args:
        count: images.
        shape: of an image.
        dtype: of an image; those of another type are not kept.
        limit: bytes at most; the first images, as many as fit, are kept.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any], limit: float
    ) -> None:
        self.dtype = dtype
        self.capacity = int(min(count, limit // (int(np.prod(shape)) * dtype.itemsize)))
        # Anonymous shared memory, for /dev/shm, where torch shares tensors, is 64 MB in most containers.
        self.pixels = _shared((self.capacity, *shape), dtype)
        self.limits = _shared((self.capacity, 2), np.dtype(np.float64))
        self.filled = _shared((self.capacity,), np.dtype(np.bool_))

    def get(self, place: int) -> tuple[Array, tuple[float, float] | None] | None:
        if place >= self.capacity or not self.filled[place]:
            return None
        low, high = self.limits[place].tolist()
        return self.pixels[place], None if low != low else (low, high)

    def put(self, place: int, pixels: Array, limits: tuple[float, float] | None) -> None:
        if place < self.capacity and pixels.dtype == self.dtype:
            self.pixels[place], self.limits[place] = (
                pixels,
                (np.nan, np.nan) if limits is None else limits,
            )
            self.filled[place] = True  # last, for another process may look in between


def _shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, int(np.prod(shape))).reshape(shape)


class ImageFiles:
    """Files below one folder, as if they were one array (N, *spatial, channels) of images.

    The first readable file tells shape, type, ``limits`` (the raw values that become 0 and 1 in it, None where neither it nor
    ``reading`` says) and ``largest`` (its largest value); a file of another shape is unreadable.

    Args:
        root: the folder; nothing outside it is read, links included.
        paths: (N,) strings, relative to it.
        reading: how a file becomes an image.
        cache: GiB of memory for decoded images.
        masks: (N,) paths of the masks for ``reading.around_mask``; None: there are none.

    Raises:
        InputError: no file can be read, or one lies outside the folder.
    """

    def __init__(
        self,
        root: Path,
        paths: npt.NDArray[Any],
        reading: Reading,
        cache: float = 0.0,
        masks: npt.NDArray[Any] | None = None,
    ) -> None:
        self.root, self.paths, self.reading, self.masks = (
            os.path.realpath(root),
            paths,
            reading,
            masks,
        )
        self._places = np.arange(len(paths))
        self._shape: tuple[int, ...] | None = None
        first, self.limits = self._first()
        self._shape, self.dtype, self.largest = (
            first.shape,
            first.dtype,
            float(np.nanmax(first, initial=0)),
        )
        self._cache: _Cache | None = _Cache(len(paths), first.shape, first.dtype, cache * 2**30)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *spatial, channels)."""
        return (len(self), *(self._shape or ()))

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shape) - 2

    def scaled(self, rows: Sequence[int] | npt.NDArray[Any], limits: tuple[float, float]) -> Tensor:
        """Images (B, channels, *spatial), float32, windowed to 0..1.

        Args:
            rows: which.
            limits: raw values that become 0 and 1 where neither window nor type tells.

        Raises:
            InputError: a file cannot be read after all.
        """
        result = np.empty((len(rows), self.shape[-1], *self.shape[1:-1]), np.float32)
        for place, row in enumerate(rows):
            try:
                pixels, own = self._read(int(self._places[row]))
            except Unreadable as error:
                raise InputError(
                    f"{self.paths[self._places[row]]} {error}: repair or remove it"
                ) from error
            low, high = own or limits
            np.subtract(
                np.moveaxis(pixels, -1, 0), np.float32(low), out=result[place], casting="unsafe"
            )
            result[place] /= np.float32(high - low)
        return torch.from_numpy(result).clamp_(0, 1)

    def subset(self, rows: npt.NDArray[Any]) -> "ImageFiles":
        """Some of the images, with the same cache."""
        other = object.__new__(ImageFiles)
        other.__dict__ = {**self.__dict__, "_places": self._places[rows]}
        return other

    def unreadable(self) -> dict[int, str]:
        """Decode all files once, in threads, and keep those that fit in the cache; the reason for each row that fails."""
        chunks = [
            range(start, min(start + _CHUNK, len(self))) for start in range(0, len(self), _CHUNK)
        ]
        reasons: dict[int, str] = {}
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(total=len(self), desc="checking files", disable=None) as progress,
        ):
            for chunk, found in zip(chunks, pool.map(self._check, chunks), strict=True):
                reasons |= found
                progress.update(len(chunk))
        return reasons

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: a worker that is not forked cannot share it."""
        return {**self.__dict__, "_cache": None}

    def _check(self, rows: Sequence[int]) -> dict[int, str]:
        reasons = {}
        for row in rows:
            try:
                self._read(int(self._places[row]))
            except Unreadable as error:
                reasons[row] = str(error)
        return reasons

    def _first(self) -> tuple[Array, tuple[float, float] | None]:
        reason = "there is none"
        for place in range(len(self.paths)):
            try:
                return self._decoded(place)
            except Unreadable as error:
                reason = reason if place else f"the first, {self.paths[place]}, {error}"
        raise InputError(
            f"none of the {len(self.paths)} image files in {self.root} can be read ({reason}): check the paths"
        )

    def _read(self, place: int) -> tuple[Array, tuple[float, float] | None]:
        known = self._cache.get(place) if self._cache else None
        if known is not None:
            return known
        pixels, limits = self._decoded(place)
        if self._cache:
            self._cache.put(place, pixels, limits)
        return pixels, limits

    def _decoded(self, place: int) -> tuple[Array, tuple[float, float] | None]:
        pixels, limits = self.reading.apply(
            decode(self._inside(str(self.paths[place]))), self._mask(place)
        )
        if self._shape is not None and pixels.shape != self._shape:
            raise Unreadable(_mismatch(pixels.shape, self._shape))
        return pixels, limits

    def _mask(self, place: int) -> Decoded | None:
        if self.masks is None:
            return None
        name = str(self.masks[place])
        if not name:
            raise Unreadable("has no mask")
        try:
            return decode(self._inside(name))
        except Unreadable as error:
            raise Unreadable(f"has a mask, {name}, that {error}") from error

    def _inside(self, name: str) -> Path:
        path = os.path.realpath(os.path.join(self.root, name))
        slices = (
            [os.path.realpath(entry.path) for entry in os.scandir(path)]
            if os.path.isdir(path)
            else []
        )
        if not all(real.startswith(os.path.join(self.root, "")) for real in (path, *slices)):
            raise InputError(
                f"{name} lies outside {self.root}: only files below the data's folder are read"
            )
        return Path(path)


def _mismatch(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if shape[:-1] != wanted[:-1]:
        return f"is {by(shape[:-1])} where others are {by(wanted[:-1])}: data.size, and data.fit, bring all to one size"
    return f"has {shape[-1]} channel(s) where others have {wanted[-1]}: data.channels=1 or 3 makes them alike"
