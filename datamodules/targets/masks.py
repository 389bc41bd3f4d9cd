"""A class for each pixel."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from holdfast.datamodules.arrays import Arrays
from holdfast.datamodules.arraytargets import masks_in, with_classes
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.maskfiles import LabelFiles, values_in
from holdfast.datamodules.masks import (
    Masks,
    have_masks,
    parts_by_size,
    read_masks,
    renumbered,
    shares_of,
    subset_of,
)
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.rows import Records
from holdfast.datamodules.settings import FilesConfig
from holdfast.datamodules.targets.base import (
    AskedOfArrays,
    AskedOfRecords,
    Counted,
    Read,
    Rows,
    Target,
    Where,
    present_names,
    unknown_values,
)
from holdfast.tta.errors import InputError

#: Sizes of pixels that differ by no more are alike.
_ALIKE = 1.5


@dataclass(frozen=True, eq=False)
class MaskTarget(Target):
    """One of C classes a pixel, of which 0 is the background.

    Args:
        masks: (N, *spatial) integer classes, ``UNLABELLED`` where a pixel counts for nothing; or
            files, which are as that; or N, where no image has one.
        names: of the classes 0..C-1.
    """

    key: ClassVar[str] = "mask"
    usual: ClassVar[str] = "segmentation"
    called: ClassVar[str] = "mask"
    ordered_by: ClassVar[str] = "the share of their foreground"
    of_pixels: ClassVar[bool] = True
    undrawn: ClassVar[str] = "masks show several"

    masks: Masks | int
    names: tuple[str, ...] = ()

    @classmethod
    def of_nothing(cls, count: int) -> "MaskTarget":
        """Images without a mask."""
        return cls(count)

    @classmethod
    def in_records(cls, records: Records) -> bool:
        """Whether there are files of masks, and no findings."""
        return records.masks is not None and records.findings is None

    @classmethod
    def in_arrays(cls, arrays: Arrays) -> bool:
        """Whether there are masks, and no labels."""
        return "masks" in arrays and "labels" not in arrays

    @classmethod
    def from_records(cls, asked: AskedOfRecords) -> Read:
        """The files, which stay where they are."""
        records, masks = asked.records, asked.records.masks
        if masks is None or not masks.known[asked.named].any():
            return Read(cls.of_nothing(len(asked.rows)))
        values = records.values
        if asked.config.labels is not None:
            if masks.structures:
                raise InputError("data.labels is of maps, and each class has files of its own here")
            values = values_of(asked.config.labels)
        if values is None:
            values = values_in(asked.files.root, masks.subset(asked.named), records.origin)
        files = LabelFiles(asked.files, masks.subset(asked.rows), values, asked.config.cache)
        return Read(cls(files, values.names), _mixed(asked.files, asked.config))

    @classmethod
    def from_arrays(cls, asked: AskedOfArrays) -> Read:
        """The key masks; its values are classes as ``data.labels`` says, or as they are."""
        if "masks" not in asked.arrays:
            return Read(replace(cls.of_nothing(int(asked.rows.sum())), names=asked.names or ()))
        every = masks_in(asked.arrays, asked.path)
        part, names = with_classes(every, asked.rows, asked.names or (), asked.labels, asked.path)
        return Read(cls(part, names))

    def __len__(self) -> int:
        return self.masks if isinstance(self.masks, int) else len(self.masks)

    def check(self, sides: tuple[int, ...]) -> None:
        """Refuse masks in memory of another shape than the images, or of no whole numbers."""
        wanted = (len(self), *sides)
        if isinstance(self.masks, np.ndarray) and (
            self.masks.shape != wanted or self.masks.dtype.kind not in "iu"
        ):
            raise InputError(
                f"masks have shape {self.masks.shape} and type {self.masks.dtype}: expected whole "
                f"numbers of shape {wanted}, a class for each pixel"
            )

    def batch(
        self, rows: Rows, sides: tuple[int, ...], lost: dict[int, str] | None = None
    ) -> Tensor:
        """(B, *spatial) classes, -1 where a pixel counts for nothing."""
        if isinstance(self.masks, int):
            return unknown_values(len(rows), *sides)
        return read_masks(self.masks, rows, lost)

    def subset(self, rows: npt.NDArray[Any]) -> "MaskTarget":
        """That of some images."""
        if isinstance(self.masks, int):
            return replace(self, masks=len(rows))
        return replace(self, masks=subset_of(self.masks, rows))

    @property
    def known(self) -> Where:
        """(N,) whether an image has a mask."""
        if isinstance(self.masks, int):
            return np.zeros(self.masks, dtype=np.bool_)
        return have_masks(self.masks)

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """(N, C) share of each class among the pixels of a mask; NaN where there is none.

        Raises:
            InputError: a pixel has none of the classes.
        """
        if isinstance(self.masks, int):
            return np.full((self.masks, len(self.names)), np.nan)
        return shares_of(self.masks, len(self.names))

    @property
    def kinds(self) -> Rows:
        """(N,) the third that an image is in by the share of its foreground."""
        if isinstance(self.masks, int):
            return np.full(self.masks, UNLABELLED)
        return parts_by_size(self.shares)

    def counts(self) -> Rows:
        """(C,) images that show each class."""
        return np.asarray((self.shares > 0).sum(0), dtype=np.int64)

    def unusable(self, lost: Collection[int]) -> dict[int, str]:
        """Decode all masks in files once."""
        return self.masks.unusable(lost) if isinstance(self.masks, LabelFiles) else {}

    def noted(self) -> tuple[str, ...]:
        """How many masks are empty."""
        return self.masks.note() if isinstance(self.masks, LabelFiles) else ()

    def numbered(self, table: Rows, names: tuple[str, ...]) -> "MaskTarget":
        """The masks as the source numbers its classes."""
        if isinstance(self.masks, int):
            return replace(self, names=names)
        return replace(self, masks=renumbered(self.masks, table), names=names)

    def check_teaches(self) -> None:
        """Two classes are needed."""
        if not self.known.any():
            raise InputError(
                "no training image has a mask: training needs one beside each image, or a table's "
                "column mask"
            )
        present = present_names(self)
        if len(present) < 2:
            raise InputError(
                f"the training masks show 1 class ({present[0]}): training needs at least two"
            )

    def said(self, row: int) -> str:
        """The shares of the classes that it shows."""
        if not self.known[row]:
            return "no mask"
        shares = zip(self.names, self.shares[row].tolist(), strict=True)
        return ", ".join(f"{name} {share:.0%}" for name, share in shares if share)

    def counted(self) -> Counted:
        """The mean share of each class."""
        shares = np.nanmean(self.shares, axis=0).tolist()
        return Counted(dict(zip(self.names, shares, strict=True)), "{:.2%}", "of the pixels in")


def _mixed(files: ImageFiles, config: FilesConfig) -> tuple[str, ...]:
    """A note on images whose pixels are of several sizes."""
    spacing = files.facts.spacing
    if config.spacing is not None or all(high <= _ALIKE * low for low, high in spacing):
        return ()
    shown = ", ".join(f"{low:.3g} to {high:.3g}" for low, high in spacing)
    return (
        f"pixels are of several sizes ({shown} mm along the axes): data.spacing=MM would bring all "
        "to one",
    )
