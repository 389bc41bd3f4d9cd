"""Images that stay in files until they are asked for, decoded in whichever process asks, and kept where they fit."""

import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from datamodules.decoding import Array, Decoded, Unreadable, decode
from tta.errors import InputError

#: Shares of pixels that ``window=percentile`` maps to 0 and 1, as published for MR, which has no unit.
_PERCENTILES = (0.5, 99.5)
_CHUNK = 32  # files that a thread checks in one go


@dataclass(frozen=True)
class Reading:
    """How a decoded file becomes an image; None leaves it as it is.

    Args:
        size: sides of the image, (H, W) or (D, H, W), or one for all.
        fit: stretch (each side by itself), cover (scale to cover, cut what stands over), pad (scale to fit in, surround with
            the image's minimum) or crop (do not scale: cut or surround so, about the centre).
        channels: 1 makes colour grey (ITU-R 601), 3 repeats grey.
        window: raw values that become 0 and 1; ``file``: the display window that a DICOM file names; ``percentile``: its own
            0.5 and 99.5 %; None: the span of its type, or where that is unknown the image set's own range.
    """

    size: tuple[int, ...] | int | None = None
    fit: str = "stretch"
    channels: int | None = None
    window: tuple[float, float] | str | None = None

    def apply(self, decoded: Decoded) -> tuple[Array, tuple[float, float] | None]:
        """The image (*spatial, channels) in its file's type, and the values that become 0 and 1 where it knows them.

        Raises:
            Unreadable: it cannot be made so.
        """
        pixels = self._channels(decoded.pixels)
        limits = self._limits(decoded, pixels)
        size = (self.size,) * (pixels.ndim - 1) if isinstance(self.size, int) else self.size or pixels.shape[:-1]
        if len(size) != pixels.ndim - 1:
            raise Unreadable(f"is {_by(pixels.shape[:-1])}, which has other axes than data.size={list(size)}")
        if size != pixels.shape[:-1]:
            pixels = fitted(pixels, size, self.fit)
        return pixels, limits

    def _channels(self, pixels: Array) -> Array:
        have = pixels.shape[-1]
        if self.channels is None or self.channels == have:
            return pixels
        if self.channels == 3 and have == 1:
            return np.repeat(pixels, 3, axis=-1)
        if self.channels == 1 and have == 3:
            return _typed(pixels.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32), pixels.dtype)
        raise Unreadable(f"has {have} channels, which cannot become {self.channels}")

    def _limits(self, decoded: Decoded, pixels: Array) -> tuple[float, float] | None:
        if self.window == "percentile":
            low, high = np.nanpercentile(pixels, _PERCENTILES)
            return float(low), float(high if high > low else low + 1)
        if self.window == "file":
            if decoded.window is None:
                raise Unreadable("names no display window: set data.window=[LOW,HIGH]")
            return decoded.window
        return decoded.span if self.window is None else (float(self.window[0]), float(self.window[1]))


def fitted(pixels: Array, size: Sequence[int], fit: str) -> Array:
    """An image of other sides, in the same type.

    Args:
        pixels: (*spatial, channels).
        size: the new sides.
        fit: as in ``Reading``.
    """
    old = pixels.shape[:-1]
    scales = [new / side for new, side in zip(size, old, strict=True)]
    scale = {"cover": max(scales), "pad": min(scales), "crop": 1.0}.get(fit)
    sides = list(size) if scale is None else [max(1, round(side * scale)) for side in old]
    result = pixels if tuple(sides) == old else _resampled(pixels, sides)
    cut, padding = [], []
    for side, new in zip(sides, size, strict=True):
        start, missing = max(0, (side - new) // 2), max(0, new - side)
        cut.append(slice(start, start + min(side, new)))
        padding.append((missing // 2, missing - missing // 2))
    return np.pad(result[tuple(cut)], [*padding, (0, 0)], constant_values=pixels.min())  # 0 would be water in CT


def _resampled(pixels: Array, sides: list[int]) -> Array:
    images = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(np.float32))
    if len(sides) == 2:
        images = F.interpolate(images, sides, mode="bilinear", antialias=True)
    elif all(new <= old for new, old in zip(sides, pixels.shape[:-1], strict=True)):
        images = F.interpolate(images, sides, mode="area")  # torch has no antialiasing in 3D
    else:
        images = F.interpolate(images, sides, mode="trilinear")
    return _typed(np.moveaxis(images[0].numpy(), 0, -1), pixels.dtype)


def _typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers in a type, rounded where it is one of whole numbers."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.round(values), info.min, info.max).astype(dtype)


class _Cache:
    """Decoded images in memory that forked workers share: what one of them decodes, all have.

    Args:
        count: images.
        shape: of an image.
        dtype: of an image; those of another type are not kept.
        limit: bytes at most; the first images, as many as fit, are kept.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any], limit: float) -> None:
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
            self.pixels[place], self.limits[place] = pixels, (np.nan, np.nan) if limits is None else limits
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

    Raises:
        InputError: no file can be read, or one lies outside the folder.
    """

    def __init__(self, root: Path, paths: npt.NDArray[Any], reading: Reading, cache: float = 0.0) -> None:
        self.root, self.paths, self.reading = os.path.realpath(root), paths, reading
        self._places = np.arange(len(paths))
        self._shape: tuple[int, ...] | None = None
        first, self.limits = self._first()
        self._shape, self.dtype, self.largest = first.shape, first.dtype, float(np.nanmax(first, initial=0))
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
                raise InputError(f"{self.paths[self._places[row]]} {error}: repair or remove it") from error
            low, high = own or limits
            np.subtract(np.moveaxis(pixels, -1, 0), np.float32(low), out=result[place], casting="unsafe")
            result[place] /= np.float32(high - low)
        return torch.from_numpy(result).clamp_(0, 1)

    def subset(self, rows: npt.NDArray[Any]) -> "ImageFiles":
        """Some of the images, with the same cache."""
        other = object.__new__(ImageFiles)
        other.__dict__ = {**self.__dict__, "_places": self._places[rows]}
        return other

    def unreadable(self) -> dict[int, str]:
        """Decode all files once, in threads, and keep those that fit in the cache; the reason for each row that fails."""
        chunks = [range(start, min(start + _CHUNK, len(self))) for start in range(0, len(self), _CHUNK)]
        reasons: dict[int, str] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(self), desc="checking files", disable=None) as progress:
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
        raise InputError(f"none of the {len(self.paths)} image files in {self.root} can be read ({reason}): check the paths")

    def _read(self, place: int) -> tuple[Array, tuple[float, float] | None]:
        known = self._cache.get(place) if self._cache else None
        if known is not None:
            return known
        pixels, limits = self._decoded(place)
        if self._cache:
            self._cache.put(place, pixels, limits)
        return pixels, limits

    def _decoded(self, place: int) -> tuple[Array, tuple[float, float] | None]:
        pixels, limits = self.reading.apply(decode(self._inside(place)))
        if self._shape is not None and pixels.shape != self._shape:
            raise Unreadable(_mismatch(pixels.shape, self._shape))
        return pixels, limits

    def _inside(self, place: int) -> Path:
        path = os.path.realpath(os.path.join(self.root, str(self.paths[place])))
        if path != self.root and not path.startswith(os.path.join(self.root, "")):
            raise InputError(f"{self.paths[place]} lies outside {self.root}: only files below the data's folder are read")
        return Path(path)


def _mismatch(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if shape[:-1] != wanted[:-1]:
        return f"is {_by(shape[:-1])} where others are {_by(wanted[:-1])}: data.size, and data.fit, bring all to one size"
    return f"has {shape[-1]} channel(s) where others have {wanted[-1]}: data.channels=1 or 3 makes them alike"


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
