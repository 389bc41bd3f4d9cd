"""Images that stay in files until they are asked for, decoded in whichever process asks, and kept
where they fit.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from holdfast.datamodules.cache import Cache
from holdfast.datamodules.decoding import Array, Decoded, Unreadable
from holdfast.datamodules.facts import Facts, Gathered
from holdfast.datamodules.frames import decode_named, named_file
from holdfast.datamodules.glance import ImageGlance, Limits, form_of, glance_of
from holdfast.datamodules.paths import inside
from holdfast.datamodules.patience import Patience
from holdfast.datamodules.placing import Place
from holdfast.datamodules.reading import Reading, by
from holdfast.datamodules.stacked import stacked
from holdfast.tta.errors import InputError
from holdfast.tta.saying import hushed

_CHUNK = 32  # files that a thread checks in one go
#: Files that are looked at, spread over the set, where not all are checked.
_SAMPLE = 8


class ImageFiles:
    """Files below one folder, as if they were one array (N, *spatial, channels) of images.

    The first readable file tells the shape at first; once all were checked it is the most frequent
    one. A file of another shape is unreadable.

    Args:
        root: the folder; nothing outside it is read, links included.
        paths: (N,) strings, relative to it.
        reading: how a file becomes an image.
        cache: GiB of memory for decoded images.
        rois: (N,) paths of what ``reading.around_roi`` is to look at; None: there are none.
        further: (N, K) paths of the files of further channels; None: an image is one file.
        dense: what is asked is an answer at each pixel: images may have several sides, and then
            come one at a time, and where they lie in their files is remembered.

    Raises:
        InputError: no file can be read, or one lies outside the folder.
    """

    def __init__(
        self,
        root: Path,
        paths: npt.NDArray[Any],
        reading: Reading,
        cache: float = 0.0,
        rois: npt.NDArray[Any] | None = None,
        further: npt.NDArray[Any] | None = None,
        dense: bool = False,
    ) -> None:
        self.root, self.paths, self.reading, self.rois = (
            os.path.realpath(root),
            paths,
            reading,
            rois,
        )
        self.further, self.dense = further, dense
        self._places = np.arange(len(paths))
        #: Where images lie in their files, by place, as far as they were read.
        self._located: dict[int, Place] = {}
        self._shape: tuple[int, ...] | None = None
        self._checked = False
        self._patience = Patience()
        self._found: Gathered | None = None
        self._facts: Facts | None = None
        self._seen: frozenset[str] | None = None  # their scales
        self._first = self._first_readable()
        form = self._first[1].form
        self._shape, self.dtype = form.shape, np.dtype(form.dtype)
        self._cache: Cache | None = Cache(len(paths), form.shape, self.dtype, cache * 2**30)

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

    @property
    def ragged(self) -> bool:
        """Whether images have several sides, as far as they were looked at."""
        return len({form.shape for form in self.found.counted()}) > 1

    @property
    def found(self) -> Gathered:
        """What was seen of each file: of all that can be used once they were checked, else of
        some.
        """
        if self._found is None:
            self._found = self._looked_at()
        return self._found

    @property
    def facts(self) -> Facts:
        """What the files are, as far as they were looked at."""
        if self._facts is None:
            facts, note = self.found.facts(), self.reading.idle(self._scales())
            self._facts = replace(facts, notes=(*facts.notes, note)) if note else facts
        return self._facts

    def broken(self) -> npt.NDArray[np.bool_] | None:
        """(N,) whether an image has pixels that are no numbers; None: not all were looked at."""
        return self.found.broken[self._places] if self._checked else None

    def name(self, place: int) -> str:
        """The path of a file, by its place in ``found``, as it was given."""
        return str(self.paths[place])

    def scaled(self, rows: Sequence[int] | npt.NDArray[Any], limits: Limits) -> Tensor:
        """Images (B, channels, *spatial), float32, windowed to 0..1.

        Args:
            rows: which.
            limits: raw values that become 0 and 1 where neither window nor type tells.

        Raises:
            InputError: a file cannot be read after all.
        """
        images, reasons = self.read(rows, limits)
        for place, reason in reasons.items():
            name = self.name(int(self._places[rows[place]]))
            raise InputError(f"{name} {reason}: repair or remove it")
        return images

    def read(
        self, rows: Sequence[int] | npt.NDArray[Any], limits: Limits
    ) -> tuple[Tensor, dict[int, str]]:
        """Images as ``scaled`` has them, and why some cannot be read: another stands in their
        place.

        A file that could be read in the check, or fails as a network disk does, is tried again.

        Args:
            rows: which.
            limits: as for ``scaled``.

        Returns:
            The images (B, channels, *spatial), NaN where there is none to stand in, and the reason
            for each that cannot be read, by its place in ``rows``.
        """
        result = np.empty((len(rows), self.shape[-1], *self.shape[1:-1]), np.float32)
        reasons: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                pixels, own = self._patiently(int(self._places[row]))
            except (Unreadable, InputError) as error:
                reasons[place] = str(error)
                continue
            if pixels.shape[:-1] != result.shape[2:]:
                result = self._like(pixels, result, place)
            low, high = own or limits
            image = result[place]
            np.subtract(np.moveaxis(pixels, -1, 0), np.float32(low), out=image, casting="unsafe")
            image /= np.float32(high - low)
        if reasons:
            other = next((place for place in range(len(rows)) if place not in reasons), None)
            result[list(reasons)] = np.nan if other is None else result[other]
        return torch.from_numpy(result).clamp_(0, 1), reasons

    def _like(self, pixels: Array, result: Array, place: int) -> Array:
        """Room for images of other sides than most, where this is the only one so far."""
        if place:
            raise InputError(
                f"images of several sides ({by(result.shape[2:])} and {by(pixels.shape[:-1])}) "
                "cannot share a batch: let them arrive one by one, stream.batch_size=1, or bring "
                "all to one size, data.size"
            )
        return np.empty((len(result), pixels.shape[-1], *pixels.shape[:-1]), np.float32)

    def place(self, row: int) -> Place:
        """Where an image lies in its file, which is read where it was not before; of images of
        which an answer at each pixel is asked.

        Raises:
            InputError: it cannot be read.
        """
        try:
            return self.placed_at(int(self._places[row]))
        except Unreadable as error:
            name = self.name(int(self._places[row]))
            raise InputError(f"{name} {error}: repair or remove it") from error

    def placed_at(self, at: int) -> Place:
        """The same of an image by its place in ``paths``.

        Raises:
            Unreadable: it cannot be read.
        """
        if at not in self._located:
            self._tried(at)
        return self._located[at]

    def subset(self, rows: npt.NDArray[Any]) -> "ImageFiles":
        """Some of the images, with the same cache."""
        other = object.__new__(ImageFiles)
        other.__dict__ = {**self.__dict__, "_places": self._places[rows]}
        return other

    def unreadable(self) -> dict[int, str]:
        """Decode all files once, in threads, and keep those that fit in the cache.

        Afterwards ``facts`` are those of all files, and the shape is the most frequent one.

        Returns:
            The reason for each row that cannot be used.
        """
        chunks = [
            range(start, min(start + _CHUNK, len(self))) for start in range(0, len(self), _CHUNK)
        ]
        reasons: dict[int, str] = {}
        found = self._gathered()
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(total=len(self), desc="checking files", disable=hushed() or None) as progress,
        ):
            for chunk, seen in zip(chunks, pool.map(self._check, chunks), strict=True):
                for row, glance in zip(chunk, seen, strict=True):
                    if isinstance(glance, str):
                        reasons[row] = glance
                    else:
                        found.add(int(self._places[row]), glance)
                progress.update(len(chunk))
        self._settle(found, reasons)
        return dict(sorted(reasons.items()))

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: a worker that is not forked cannot share it."""
        return {**self.__dict__, "_cache": None}

    def _check(self, rows: Sequence[int]) -> list[ImageGlance | str]:
        """What is seen of some files, or why they cannot be read."""
        seen: list[ImageGlance | str] = []
        for row in rows:
            place = int(self._places[row])
            try:
                decoded, pixels, limits = self._tried(place)
            except Unreadable as error:
                seen.append(str(error))
                continue
            if self._cache:
                self._cache.put(place, pixels, limits)
            seen.append(glance_of(decoded, pixels, limits))
        return seen

    def _settle(self, found: Gathered, reasons: dict[int, str]) -> None:
        """Take what most files have for what they should have, and the others for unreadable."""
        forms = found.counted()
        if not forms:
            return
        self._shape = found.shape()
        unlike = [form for form in forms if not self._fits(form.shape)]
        places = found.rows(*unlike)
        rows = np.flatnonzero(np.isin(self._places, places))
        for row in rows.tolist():
            form = found.first_form(self._places[[row]])
            reasons[row] = self._mismatch(form.shape)
        found.leave_out(places)
        types = [np.dtype(form.dtype) for form in found.counted()]
        self.dtype = np.result_type(*types)  # one that holds the values of all
        cache = self._cache
        if cache is not None and (cache.shape, cache.dtype) != (self._shape, types[0]):
            # The first file was odd: most would never be kept.
            self._cache = Cache(len(self.paths), self._shape, types[0], cache.limit)
        self._found, self._facts, self._seen, self._checked = found, None, None, True

    def _scales(self) -> frozenset[str]:
        """The scales of the files that were looked at."""
        if self._seen is None:
            self._seen = frozenset(form.scale for form in self.found.counted())
        return self._seen

    def _gathered(self) -> Gathered:
        return Gathered(len(self.paths), own_range=self.reading.window in ("percentile", "file"))

    def _looked_at(self) -> Gathered:
        """What is seen of a few files, spread over the set."""
        found, count = self._gathered(), min(_SAMPLE, len(self))
        found.add(*self._first)
        for row in np.unique(np.linspace(0, len(self) - 1, count, dtype=int)).tolist():
            place = int(self._places[row])
            (glance,) = self._check([row])
            if not isinstance(glance, str) and self._fits(glance.form.shape):
                found.add(place, glance)
        return found

    def _first_readable(self) -> tuple[int, ImageGlance]:
        """The place of the first file that can be read, and what is seen of it."""
        reason = "there is none"
        for place in range(len(self.paths)):
            try:
                return place, glance_of(*self._tried(place))
            except Unreadable as error:
                reason = reason if place else f"the first, {self.name(place)}, {error}"
        raise InputError(
            f"none of the {len(self.paths)} image files in {self.root} can be read ({reason}): "
            "check the paths"
        )

    def _patiently(self, place: int) -> tuple[Array, Limits | None]:
        """An image from the cache or its file."""
        known = self._cache.get(place) if self._cache else None
        if known is not None:
            return known
        decoded, pixels, limits = self._tried(place)
        form = form_of(decoded, pixels)
        if not self._fits(form.shape):
            raise Unreadable(self._mismatch(form.shape))
        if not self.reading.suits({form.scale, *self._scales()}):
            raise Unreadable(f"has values {form.scale}, unlike the files that were looked at")
        if self._cache:
            self._cache.put(place, pixels, limits)
        return pixels, limits

    def _tried(self, place: int) -> tuple[Decoded, Array, Limits | None]:
        """An image from its file, which is read again where that may help."""
        return self._patience.tried(lambda: self._decoded(place), self._checked)

    def _decoded(self, place: int) -> tuple[Decoded, Array, Limits | None]:
        name, roi = str(self.paths[place]), self._roi(place)
        decoded = decode_named(self.root, name)
        limits: Limits | None
        if self.further is None:
            pixels, limits, where = self.reading.placed(decoded, roi)
        else:
            others = [self._channel(str(name)) for name in self.further[place].tolist()]
            decoded, pixels, limits, where = stacked([decoded, *others], self.reading, roi)
        if self.dense:
            self._located[place] = replace(where, path=inside(self.root, named_file(name)))
        return decoded, pixels, limits

    def _channel(self, name: str) -> Decoded:
        try:
            return decode_named(self.root, name)
        except Unreadable as error:
            raise Unreadable(f"has a channel, {name}, that {error}") from error

    def _roi(self, place: int) -> Decoded | None:
        if self.rois is None:
            return None
        name = str(self.rois[place])
        if not name:
            raise Unreadable("has no roi")
        try:
            return decode_named(self.root, name)
        except Unreadable as error:
            raise Unreadable(f"has a roi, {name}, that {error}") from error

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an image of this shape fits the others."""
        wanted = self._shape or ()
        if self.dense:
            return len(shape) == len(wanted) and shape[-1] == wanted[-1]
        return shape == wanted

    def _mismatch(self, shape: tuple[int, ...]) -> str:
        """Why an image of this shape does not fit the others."""
        wanted = self._shape or ()
        sides, others = by(shape[:-1]), by(wanted[:-1])
        if len(shape) != len(wanted):
            return f"is {sides} where others are {others}: leave out the volumes, or the pictures"
        if shape[:-1] != wanted[:-1]:
            return (
                f"is {sides} where others are {others}: data.size, and data.fit, bring all to "
                "one size"
            )
        return (
            f"has {shape[-1]} channel(s) where others have {wanted[-1]}: data.channels=1 or 3 "
            "makes them alike"
        )
