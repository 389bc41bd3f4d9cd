"""One class an image."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.datamodules.arraytargets import labels_in
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.labels import missing_noted, read_labels
from holdfast.datamodules.rows import Records
from holdfast.datamodules.targets.base import (
    AskedOfArrays,
    AskedOfRecords,
    Column,
    Read,
    Rows,
    Target,
    Where,
    present_names,
)
from holdfast.tta.errors import InputError


@dataclass(frozen=True, eq=False)
class LabelTarget(Target):
    """One of C classes an image.

    Args:
        codes: (N,) classes, ``UNLABELLED`` where there is none.
        names: of the classes 0..C-1.

    Example:
        >>> LabelTarget(np.array([1, -1, 1]), ("well", "ill")).counts().tolist()
        [0, 2]
    """

    key: ClassVar[str] = "label"
    usual: ClassVar[str] = "single"
    divides: ClassVar[bool] = True

    codes: Rows
    names: tuple[str, ...] = ()

    @classmethod
    def of_nothing(cls, count: int) -> "LabelTarget":
        """Images without a label, of no class."""
        return cls(np.full(count, UNLABELLED))

    @classmethod
    def in_records(cls, records: Records) -> bool:
        """Whether there is a label."""
        return bool((records.labels != "").any())

    @classmethod
    def from_records(cls, asked: AskedOfRecords) -> Read:
        """Names of classes, or numbers."""
        records, rows, named = asked.records, asked.rows, asked.named
        labels = read_labels(
            records.labels[named], records.origin, records.class_names, asked.config.missing
        )
        codes = np.full(len(named), UNLABELLED)
        codes[named] = labels.codes
        counted = records.labels[rows if asked.target else named]
        return Read(cls(codes[rows], labels.names), missing_noted(counted, labels.missing))

    @classmethod
    def from_arrays(cls, asked: AskedOfArrays) -> Read:
        """The key labels, names or numbers."""
        codes = np.full(len(asked.rows), UNLABELLED)
        written = labels_in(asked.arrays, len(codes), asked.path)
        labels = read_labels(written[asked.named], asked.path, asked.names, asked.missing)
        codes[asked.named] = labels.codes
        counted = written[asked.rows if asked.target else asked.named]
        notes = missing_noted(counted, labels.missing)
        return Read(cls(codes[asked.rows], labels.names), notes)

    def __len__(self) -> int:
        return len(self.codes)

    def check(self, sides: tuple[int, ...]) -> None:
        """Refuse a label that is no class."""
        bad = self.codes[(self.codes >= len(self.names)) | (self.codes < UNLABELLED)]
        if len(bad):
            raise InputError(
                f"label {bad[0]} is out of range: there are {len(self.names)} classes, "
                "numbered from 0 "
                f"({', '.join(self.names)})"
            )

    def batch(
        self, rows: Rows, sides: tuple[int, ...], lost: dict[int, str] | None = None
    ) -> Tensor:
        """(B,) classes, -1 where there is none."""
        return torch.from_numpy(self.codes[rows])

    def item(self, value: Tensor) -> int | None:
        """The class; None where there is none."""
        label = int(value)
        return None if label == UNLABELLED else label

    def subset(self, rows: npt.NDArray[Any]) -> "LabelTarget":
        """That of some images."""
        return replace(self, codes=self.codes[rows])

    @property
    def known(self) -> Where:
        """(N,) whether an image has a label."""
        return self.codes != UNLABELLED

    @property
    def labels(self) -> Rows:
        """(N,) the labels."""
        return self.codes

    @property
    def kinds(self) -> Rows:
        """(N,) the labels."""
        return self.codes

    def counts(self) -> Rows:
        """(C,) images of each class."""
        return np.bincount(self.codes[self.known], minlength=len(self.names))

    def numbered(self, table: Rows, names: tuple[str, ...]) -> "LabelTarget":
        """The labels as the source numbers its classes."""
        return replace(self, codes=table[self.codes], names=names)

    def check_teaches(self) -> None:
        """Two classes are needed."""
        present = present_names(self)
        if not present:
            raise InputError(
                "no training image has a label: training needs a folder for each class, or a "
                "table's column label"
            )
        if len(present) < 2:
            raise InputError(
                f"the training images show 1 class ({present[0]}): training needs at least two"
            )

    def weights(self) -> npt.NDArray[np.float64]:
        """(N,) one over the size of the class."""
        return np.asarray((1 / np.maximum(self.counts(), 1))[self.codes])

    def drawn(self, number: int) -> tuple[tuple[str, Rows], tuple[str, Rows]]:
        """Images of a class, and of other ones."""
        others = np.flatnonzero((self.codes != number) & (self.codes >= 0))
        own = np.flatnonzero(self.codes == number)
        return (self.names[number], own), ("other classes", others)

    def divided(self) -> list[Rows]:
        """Images of each class."""
        return [np.flatnonzero(self.codes == label) for label in range(len(self.names))]

    def said(self, row: int) -> str:
        """The class's name."""
        label = self.codes[row]
        return "no label" if label == UNLABELLED else self.names[label]

    def columns(self) -> dict[str, Column]:
        """``label``, where any image has one."""
        if not self.known.any():
            return {}
        return {"label": np.array([*self.names, ""], dtype=object)[self.codes]}
