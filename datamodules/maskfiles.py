"""Masks that stay in files beside their images, and come as those are shown."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from holdfast.datamodules.cache import Cache
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.decoding import Decoded, Unreadable
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.formats.geometry import placed
from holdfast.datamodules.formats.palette import decode_palette
from holdfast.datamodules.frames import decode_named, named_file
from holdfast.datamodules.maskvalues import Values, discovered
from holdfast.datamodules.paths import inside
from holdfast.datamodules.placing import Place
from holdfast.datamodules.stacked import check_together
from holdfast.tta.errors import InputError
from holdfast.tta.saying import hushed

#: Masks that are looked at, spread over the set, to tell what their values are.
_LOOKED_AT = 64


@dataclass(frozen=True)
class MaskPaths:
    """Where the masks of a set lie.

    Args:
        paths: (N, K) relative to the set's folder, empty where an image has none: one map of all
            classes, or a file for each.
        structures: (K,) the class of each file, not zero where it is; those later hold where two
            overlap. Empty: a map.
    """

    paths: npt.NDArray[Any]
    structures: tuple[str, ...] = ()

    def subset(self, rows: npt.NDArray[Any]) -> "MaskPaths":
        """Those of some images."""
        return replace(self, paths=self.paths[rows])

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether an image has a mask."""
        return np.asarray((self.paths != "").any(1))


def decode_mask(root: str, name: str) -> Decoded:
    """A mask's file; of a picture with a palette the numbers, not their colours.

    Raises:
        Unreadable: it does not exist, or is damaged.
    """
    try:
        return decode_palette(inside(root, named_file(name))) or decode_named(root, name)
    except Unreadable as error:
        raise Unreadable(f"has a mask, {name}, that {error}") from error


def values_in(root: str, paths: MaskPaths, origin: object) -> Values:
    """What the values of some masks, spread over the set, say that classes are.

    Raises:
        InputError: they may mean anything, or none can be read.
    """
    if paths.structures:
        names = ("background", *paths.structures)
        return Values(names, {0: 0, 1: 1})
    rows = np.flatnonzero(paths.known)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows)), dtype=int))]
    masks, reason = [], ""
    for name in paths.paths[rows, 0].tolist():
        try:
            masks.append(decode_mask(root, str(name)))
            discovered(masks[-1:], name)
        except (Unreadable, InputError) as error:
            # A set of such masks is told of at once; one among others when all are checked.
            reason = reason or str(error)
            masks = masks[:-1] if isinstance(error, Unreadable) else masks
    if not masks:
        raise InputError(f"no mask of {origin} can be used, the first image {reason}")
    return discovered(masks, origin)


class LabelFiles:
    """Masks in files, as one array (N, *spatial) of classes in the places of their images' pixels.

    Args:
        images: their images, read already, or read when their masks are.
        paths: of the masks.
        values: what they hold.
        cache: GiB of memory for masks.

    Attributes:
        seen: (N, C) share of each class in the masks that were checked, NaN elsewhere.
    """

    def __init__(
        self, images: ImageFiles, paths: MaskPaths, values: Values, cache: float = 0.0
    ) -> None:
        self.images, self.paths, self.values = images, paths, values
        self._table = np.array([*range(len(values.names)), UNLABELLED], dtype=np.int64)
        self._rows = np.arange(len(paths.paths))
        self.seen = np.full((len(paths.paths), len(values.names)), np.nan)
        limit = cache * 2**30
        self._cache: Cache | None = Cache(
            len(paths.paths), images.shape[1:-1], np.dtype(np.int16), limit
        )

    def __len__(self) -> int:
        return len(self._rows)

    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether an image has a mask."""
        return self.paths.known[self._rows]

    def read(
        self, rows: npt.NDArray[np.int64], lost: dict[int, str] | None = None
    ) -> npt.NDArray[np.int64]:
        """(B, *spatial) classes, ``UNLABELLED`` where a pixel counts for nothing; see
        ``targets.MaskFiles``.

        Raises:
            InputError: a mask cannot be used after all.
        """
        masks: list[npt.NDArray[np.int64] | None] = []
        for place, row in enumerate(np.asarray(rows).tolist()):
            at = int(self._rows[row])
            try:
                skipped = lost is not None and place in lost
                masks.append(None if skipped else self._table[self._patiently(at)])
            except (Unreadable, InputError) as error:
                if lost is None:
                    raise InputError(
                        f"{self.images.name(at)} {error}: repair or remove it"
                    ) from error
                lost[place] = str(error)
                masks.append(None)
        sides = next((mask.shape for mask in masks if mask is not None), self.images.shape[1:-1])
        none = np.full(sides, UNLABELLED, dtype=np.int64)
        return np.stack([none if mask is None else mask for mask in masks])

    def subset(self, rows: npt.NDArray[Any]) -> "LabelFiles":
        """Some of the masks, with the same cache."""
        return self._with(_rows=self._rows[rows])

    def renumbered(self, table: npt.NDArray[np.int64]) -> "LabelFiles":
        """The masks with other numbers: class c becomes ``table[c]``; the last entry stands for
        ``UNLABELLED``.
        """
        return self._with(_table=np.asarray(table)[self._table])

    def _with(self, **changes: Any) -> "LabelFiles":
        other = object.__new__(LabelFiles)
        other.__dict__ = {**self.__dict__, **changes}
        return other

    def shares(self, num_classes: int) -> npt.NDArray[np.float64]:
        """(N, C) share of each class among the pixels that have one; NaN where no pixel has."""
        seen = self.seen[self._rows]
        missing = np.flatnonzero(np.isnan(seen).all(1) & self.known())
        for row in missing.tolist():
            self._note(int(self._rows[row]))
        seen = self.seen[self._rows]
        result = np.zeros((len(seen), num_classes))
        for code, place in enumerate(self._table[:-1].tolist()):
            if place != UNLABELLED:
                result[:, place] += np.nan_to_num(seen[:, code])
        total = result.sum(1, keepdims=True)
        return np.divide(result, total, out=np.full_like(result, np.nan), where=total > 0)

    def unusable(self, lost: Collection[int]) -> dict[int, str]:
        """Decode all masks once, in threads.

        Args:
            lost: rows whose images cannot be used.

        Returns:
            The reason for each other row whose mask cannot be.
        """
        rows = [row for row in np.flatnonzero(self.known()).tolist() if row not in lost]
        reasons: dict[int, str] = {}
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(total=len(rows), desc="checking masks", disable=hushed() or None) as progress,
        ):
            for row, reason in zip(rows, pool.map(self._reason, rows), strict=True):
                if reason:
                    reasons[row] = reason
                progress.update()
        return reasons

    def note(self) -> tuple[str, ...]:
        """What is worth saying of the masks that were checked."""
        background = self.seen[self._rows][:, 0]
        empty = int((background == 1).sum())
        if not empty or self.values.names[0] != "background":
            return ()
        return (f"{empty} of {int(self.known().sum())} masks are empty: background alone",)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def _reason(self, row: int) -> str:
        try:
            self._note(int(self._rows[row]))
        except (Unreadable, InputError) as error:
            return str(error)
        return ""

    def _note(self, at: int) -> None:
        mask = self._patiently(at)
        counts = np.bincount(mask[mask != UNLABELLED].ravel(), minlength=self.seen.shape[1])
        if counts.sum():
            self.seen[at] = counts / counts.sum()

    def _patiently(self, at: int) -> npt.NDArray[np.int16]:
        known = self._cache.get(at) if self._cache else None
        if known is not None:
            return known[0]
        place = self.images.placed_at(at)
        if not self.paths.known[at]:
            return np.full(place.size, UNLABELLED, np.int16)
        mask = place.mask(self._numbered(at, place), UNLABELLED).astype(np.int16)
        if self._cache:
            self._cache.put(at, mask, None)
        return mask

    def _numbered(self, at: int, place: Place) -> npt.NDArray[np.int16]:
        """The mask in its image's file's pixels."""
        names = [str(name) for name in self.paths.paths[at].tolist()]
        if not self.paths.structures:
            return self.values.numbered(self._beside(names[0], place))
        whole = np.zeros(place.sides, np.int16)
        for code, name in enumerate(names, 1):
            if name:
                whole[(self._beside(name, place).pixels != 0).any(-1)] = code
        return whole

    def _beside(self, name: str, place: Place) -> Decoded:
        """A mask's file, refused where it shows another place than its image."""
        image = Decoded(
            np.broadcast_to(np.uint8(0), (*place.sides, 1)),
            None,
            spacing=place.spacing,
            affine=place.affine,
            scan=place.scan,
        )
        mask = placed(decode_mask(self.images.root, name), image)
        check_together(image, mask, f"a mask, {name},")
        return mask
