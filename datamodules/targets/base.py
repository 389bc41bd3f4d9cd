"""What is known of images beside their pixels: what each kind of it says."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.datamodules.arrays import Arrays
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.rows import Records
from holdfast.datamodules.settings import FilesConfig
from holdfast.tta.errors import InputError

#: (N,) something that is known of each image; rows of images.
Column = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Where = npt.NDArray[np.bool_]


class AskedOfRecords(NamedTuple):
    """What is asked of the records of a set's files.

    Attributes:
        records: all rows.
        config: how they are read.
        files: the images of the split.
        rows: of the split.
        named: (N,) the rows that say which classes there are.
        target: the split is a target.
    """

    records: Records
    config: FilesConfig
    files: ImageFiles
    rows: npt.NDArray[np.intp]
    named: Where
    target: bool


class AskedOfArrays(NamedTuple):
    """What is asked of the arrays of a file.

    Attributes:
        arrays: the file's, of N images.
        path: of the file, for messages.
        rows: (N,) those of the split.
        named: (N,) those that say which classes there are.
        names: of the classes, in order; None: those that occur.
        missing: words that stand for no label, as ``data.missing``.
        labels: what the values of masks mean, as ``data.labels``.
        target: the split is a target.
    """

    arrays: Arrays
    path: Path
    rows: Where
    named: Where
    names: tuple[str, ...] | None
    missing: Sequence[str] | None
    labels: Any
    target: bool


class Counted(NamedTuple):
    """How much of a set each class has.

    Attributes:
        counts: by name.
        spelled: format of one of them.
        of: what they are, before the name of the set.
    """

    counts: Mapping[str, float]
    spelled: str = "{}"
    of: str = "images in"


class Target(ABC):
    """What is known of each of N images: one kind of it, which has tasks that ask for it.

    An image set holds one, and asks it whatever depends on the kind. Of some images, or of all,
    nothing may be known.

    Args:
        names: of the classes, or findings.
    """

    #: Key of a batch under which it stands, and of ``TARGETS``; tasks name it as their ``target``.
    key: ClassVar[str]
    #: Task that is meant where nobody names one.
    usual: ClassVar[str]
    #: What an image has, or lacks, in words.
    called: ClassVar[str] = "label"
    #: What the names are of.
    names_are: ClassVar[str] = "classes"
    #: What stands for the class of an image where an order asks for one, in words.
    ordered_by: ClassVar[str] = "class"
    #: What stands in a batch where nothing is known.
    unknown: ClassVar[float] = UNLABELLED
    #: Whether it is of each pixel, so that what moves an image's pixels moves it too.
    of_pixels: ClassVar[bool] = False
    #: Whether each image is of one class, so that classes divide the set.
    divides: ClassVar[bool] = False
    #: Why no stream can draw images of a class.
    undrawn: ClassVar[str] = "these are of none"
    #: Whether sets rarely agree in their names, so that those that a source does not know are left
    #: out rather than refused.
    lenient: ClassVar[bool] = False

    names: tuple[str, ...]

    # Where it comes from

    @classmethod
    @abstractmethod
    def of_nothing(cls, count: int) -> "Target":
        """Of so many images of which nothing is known."""

    @classmethod
    def in_records(cls, records: Records) -> bool:
        """Whether records that say no task have it; asked of our kinds alone."""
        return False

    @classmethod
    def in_arrays(cls, arrays: Arrays) -> bool:
        """Whether arrays that say no task have it; asked of our kinds alone."""
        return False

    @classmethod
    def from_records(cls, asked: AskedOfRecords) -> "Read":
        """What records say of a split's images.

        Raises:
            InputError: they say something odd, or this kind is not read from files.
        """
        raise InputError(f"{asked.records.origin}: {_unread(cls)}")

    @classmethod
    def from_arrays(cls, asked: AskedOfArrays) -> "Read":
        """What arrays say of a split's images; raises as ``from_records``."""
        raise InputError(f"{asked.path}: {_unread(cls)}")

    # What image sets, batches and loaders ask

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    def check(self, sides: tuple[int, ...]) -> None:
        """Refuse values or shapes that are none.

        Args:
            sides: of the images.

        Raises:
            InputError: there are such.
        """
        return

    @abstractmethod
    def batch(
        self, rows: Rows, sides: tuple[int, ...], lost: dict[int, str] | None = None
    ) -> Tensor:
        """What a batch has under ``key``, (B, ...).

        Args:
            rows: (B,) of the images.
            sides: of the images of the batch.
            lost: see ``ImageSet.batch``.
        """

    def item(self, value: Tensor) -> Any:
        """What an item has where a batch has ``value``."""
        return value

    @abstractmethod
    def subset(self, rows: npt.NDArray[Any]) -> "Target":
        """That of some images, by row number."""

    @property
    @abstractmethod
    def known(self) -> Where:
        """(N,) whether anything is known of an image."""

    @property
    def labels(self) -> Rows:
        """(N,) the one class of each image, ``UNLABELLED`` where it has none."""
        return np.full(len(self), UNLABELLED)

    @property
    @abstractmethod
    def kinds(self) -> Rows:
        """(N,) what stands for the class of an image where one is asked for, as for its place in a
        stream; ``UNLABELLED`` where nothing is known.
        """

    @abstractmethod
    def counts(self) -> Rows:
        """(C,) images of each class, or that show it, or have the finding."""

    def unusable(self, lost: Collection[int]) -> dict[int, str]:
        """Look at all that lies in files of its own.

        Args:
            lost: rows whose images cannot be used.

        Returns:
            The reason for each other row that cannot be used.
        """
        return {}

    def noted(self) -> tuple[str, ...]:
        """What is worth saying of what ``unusable`` looked at."""
        return ()

    # What programs do with it

    @abstractmethod
    def numbered(self, table: Rows, names: tuple[str, ...]) -> "Target":
        """The same in the terms of a source.

        Args:
            table: (C+1,) the source's number of each class, ``UNLABELLED`` where it has none or
                what is so called is to count for nothing; the last entry stands for what is not
                known.
            names: of the source's classes.
        """

    @abstractmethod
    def check_teaches(self) -> None:
        """Refuse what nothing can be learned from.

        Raises:
            InputError: of a set to be trained on.
        """

    def weights(self) -> npt.NDArray[np.float64] | None:
        """(N,) how often images are to be drawn so that classes are equally frequent; None where
        no order of images makes them so.
        """
        return None

    def drawn(self, number: int) -> tuple[tuple[str, Rows], tuple[str, Rows]]:
        """A class, and what is not of it: what these are called, and their rows.

        Raises:
            InputError: images are not of a class.
        """
        raise self._undrawn()

    def divided(self) -> list[Rows]:
        """Rows of each class; raises as ``drawn``."""
        raise self._undrawn()

    def _undrawn(self) -> InputError:
        return InputError(
            f"stream=prevalence draws images of a class, and {self.undrawn}: choose among "
            "stream=iid, blocks, dirichlet, continual, recurring, gradual, mixed and time"
        )

    # What is told of it

    @abstractmethod
    def said(self, row: int) -> str:
        """What is known of an image, in words."""

    def counted(self) -> Counted:
        """How many images each class has."""
        return Counted(dict(zip(self.names, self.counts().tolist(), strict=True)))

    def columns(self) -> dict[str, Column]:
        """(N,) what a table of predictions has of it, by column."""
        return {}


class Read(NamedTuple):
    """What was read: the target, and what users should know of it, a few words each."""

    target: Target
    notes: tuple[str, ...] = ()


def unknown_values(count: int, *sides: int) -> Tensor:
    """(count, *sides) classes where none is known."""
    return torch.full((count, *sides), UNLABELLED)


def present_names(target: Target) -> list[str]:
    """Names of the classes that occur."""
    return [name for name, count in zip(target.names, target.counts(), strict=True) if count]


def _unread(kind: type[Target]) -> str:
    return (
        f"nothing reads targets of {kind.key} here: give {kind.__name__} from_records for files, "
        "and from_arrays for npz"
    )
