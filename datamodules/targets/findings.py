"""Several findings an image, each present or not."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.datamodules.arrays import Arrays
from holdfast.datamodules.arraytargets import finding_names, findings_in
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.rows import Records
from holdfast.datamodules.targets.base import (
    AskedOfArrays,
    AskedOfRecords,
    Column,
    Read,
    Rows,
    Target,
    Where,
)
from holdfast.tta.errors import InputError


@dataclass(frozen=True, eq=False)
class FindingTarget(Target):
    """Which of L findings an image has.

    Args:
        values: (N, L), 1 present, 0 absent, NaN unknown.
        names: of the findings.
    """

    key: ClassVar[str] = "findings"
    usual: ClassVar[str] = "multilabel"
    called: ClassVar[str] = "known finding"
    names_are: ClassVar[str] = "findings"
    ordered_by: ClassVar[str] = "their rarest finding"
    unknown: ClassVar[float] = float("nan")
    lenient: ClassVar[bool] = True

    values: npt.NDArray[np.float32]
    names: tuple[str, ...] = ()

    @classmethod
    def of_nothing(cls, count: int) -> "FindingTarget":
        """Images of which no finding is known."""
        return cls(np.empty((count, 0), np.float32))

    @classmethod
    def in_records(cls, records: Records) -> bool:
        """Whether there are findings."""
        return records.findings is not None

    @classmethod
    def in_arrays(cls, arrays: Arrays) -> bool:
        """Whether there are findings, or labels of several columns."""
        several = arrays.get("labels", np.zeros(0))
        return "findings" in arrays or (several.ndim == 2 and several.shape[1] > 1)

    @classmethod
    def from_records(cls, asked: AskedOfRecords) -> Read:
        """The findings of the table."""
        found = asked.records.findings
        if found is None:
            return Read(cls.of_nothing(len(asked.rows)))
        return Read(cls(found.values[asked.rows], found.names), found.notes)

    @classmethod
    def from_arrays(cls, asked: AskedOfArrays) -> Read:
        """The key findings, or labels (N, L)."""
        names = finding_names(asked.arrays, asked.names, asked.path)
        if not names:
            return Read(cls.of_nothing(int(asked.rows.sum())))
        return Read(cls(findings_in(asked.arrays, asked.path)[asked.rows], names))

    def __len__(self) -> int:
        return len(self.values)

    def check(self, sides: tuple[int, ...]) -> None:
        """Refuse another number of findings than there are names."""
        wanted = (len(self), len(self.names))
        if self.values.shape != wanted:
            raise InputError(
                f"findings have shape {self.values.shape}: expected one value for each of "
                f"{wanted[0]} images and {wanted[1]} findings"
            )

    def batch(
        self, rows: Rows, sides: tuple[int, ...], lost: dict[int, str] | None = None
    ) -> Tensor:
        """(B, L) 1 present, 0 absent, NaN unknown."""
        return torch.from_numpy(self.values[rows].astype(np.float32))

    def subset(self, rows: npt.NDArray[Any]) -> "FindingTarget":
        """That of some images."""
        return replace(self, values=self.values[rows])

    @property
    def known(self) -> Where:
        """(N,) whether any finding of an image is known."""
        return np.asarray(np.isfinite(self.values).any(1))

    @property
    def kinds(self) -> Rows:
        """(N,) the rarest finding that an image has, counted from 1; 0 where it has none."""
        present = self.values == 1
        order = np.argsort(-present.sum(0), kind="stable")  # the rarest last, so that it holds
        kinds = np.where(self.known, 0, UNLABELLED).astype(np.int64)
        for finding in order.tolist():
            kinds[present[:, finding]] = finding + 1
        return kinds

    def counts(self) -> Rows:
        """(L,) images that have each finding."""
        return np.asarray((self.values == 1).sum(0), dtype=np.int64)

    def numbered(self, table: Rows, names: tuple[str, ...]) -> "FindingTarget":
        """Findings in the source's order: those that it does not know are left out, and those that
        are not said are unknown.
        """
        values = np.full((len(self), len(names)), np.nan, np.float32)
        kept = np.flatnonzero(table[:-1] != UNLABELLED)
        values[:, table[kept]] = self.values[:, kept]
        return replace(self, values=values, names=names)

    def check_teaches(self) -> None:
        """A finding is needed that some images have and others have not."""
        if not self.known.any():
            raise InputError(
                "no training image has a finding that is known, present or absent: training needs "
                "a column for each finding, or a list column"
            )
        both = [(self.values == value).any(0) for value in (0, 1)]
        if not (both[0] & both[1]).any():
            raise InputError(
                "no finding is present in some training images and absent in others: training "
                "needs at least one"
            )

    def drawn(self, number: int) -> tuple[tuple[str, Rows], tuple[str, Rows]]:
        """Images with a finding, and those without."""
        name, found = self.names[number], self.values[:, number]
        return (name, np.flatnonzero(found == 1)), (f"no {name}", np.flatnonzero(found == 0))

    def divided(self) -> list[Rows]:
        """Refused, for an image may have several findings."""
        raise InputError(
            "stream.prevalence shares images among classes, and an image may have several "
            "findings: name a finding and its share, stream.label and stream.fraction"
        )

    def said(self, row: int) -> str:
        """The findings that are present."""
        if not self.known[row]:
            return "no finding is known"
        present = [
            name for name, found in zip(self.names, self.values[row], strict=True) if found == 1
        ]
        return ", ".join(present) or "no finding"

    def columns(self) -> dict[str, Column]:
        """``true_NAME`` of each finding: 1, 0, or nothing."""
        words = np.array(["0", "1", ""], dtype=object)
        codes = np.where(np.isfinite(self.values), self.values > 0.5, 2).astype(int)
        return {f"true_{name}": words[codes[:, i]] for i, name in enumerate(self.names)}
