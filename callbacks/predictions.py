"""The predictions that leave a stream, an image a row, written as they are made."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import Trainer
from torch import Tensor

from holdfast.callbacks.columns import Columns, Known
from holdfast.callbacks.grown import Grown, GrownFile, Names
from holdfast.callbacks.writing import StreamWriter
from holdfast.tta.batches import Described
from holdfast.tta.growing import GrowingFile
from holdfast.tta.tasks import Single, Task

#: File of what a run keeps for the metrics until it is done.
KEPT = "stream.served"


class RowWriter(StreamWriter):
    """Writes a row an image, and keeps what the metrics need as numbers of fixed size.

    Args:
        path: the file.
        class_names: names of the classes, or findings.
        told: see ``StreamWriter``, as for what follows.
        skipped: images that could not be read.
        lost: by the loader.
        expected: images of the stream, for which memory is set aside.
        known: of each image.
        kept: file for what the metrics need, on which a run that was stopped goes on; None: it is
            kept in memory.
        seal: of the chain.
    """

    def __init__(
        self,
        path: Path,
        class_names: tuple[str, ...],
        told: Sequence[str],
        skipped: Mapping[str, str] | None = None,
        lost: Mapping[int, tuple[str, str]] | None = None,
        expected: int = 0,
        known: Known | None = None,
        kept: Path | None = None,
        seal: str = "",
    ) -> None:
        super().__init__(path, told, skipped, lost, known, seal)
        self.class_names = class_names
        self._expected, self._kept = expected, kept
        self._rows: Grown | GrownFile | None = None
        self._domains = Names()

    def begin(self, trainer: Trainer, state: Mapping[str, Any] | None) -> None:
        """Open what is kept; of a file, the first process does."""
        if self._kept is None:
            self._rows = Grown(self._kind, self._expected)
        elif trainer.is_global_zero:
            self._rows = GrownFile(self._kept, self._kind, state and state["kept"])

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow; none in other processes than the first."""
        kept = [self._rows.file] if isinstance(self._rows, GrownFile) else []
        return [*super().files, *kept]

    def progress(self) -> dict[str, Any]:
        """What it takes to go on, with values that are kept on disk."""
        kept = self._rows.file.state_dict() if isinstance(self._rows, GrownFile) else None
        return {**super().progress(), "domains": self._domains.known, "kept": kept}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        super().go_on(progress)
        self._domains = Names()
        for name in progress["domains"]:
            self._domains.code(name)

    @property
    def kept_columns(self) -> list[Any]:
        """What is kept of an image besides its place and domain, as numpy's types name it; taken
        by the same names, (N, ...) on the CPU.
        """
        raise NotImplementedError

    @cached_property
    def _kind(self) -> np.dtype[Any]:
        return np.dtype([("row", "<i8"), ("domain", "<i4"), *self.kept_columns])

    def keep(self, served: Mapping[str, Any]) -> None:
        """Keep the columns, where this process does."""
        if self._rows is None:
            return
        rows = np.empty(len(served["id"]), self._kind)
        rows["row"] = served["index"].numpy()
        rows["domain"] = [self._domains.code(name) for name in served["domain"]]
        for name, *_ in self.kept_columns:
            rows[name] = served[name].numpy()
        self._rows.add(rows)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(N,) which image of the image set each is."""
        return self._column("row")

    @property
    def domains(self) -> list[str]:
        """(N,) domain of each image."""
        known = self._domains.known
        return [known[code] for code in self._column("domain").tolist()]

    def _column(self, name: str) -> npt.NDArray[Any]:
        rows = np.empty(0, self._kind) if self._rows is None else self._rows.values
        return np.ascontiguousarray(rows[name])


class PredictionWriter(RowWriter):
    """Writes ``predictions.csv`` of images of one class each.

    Args:
        path: the file.
        class_names: names of the classes, which name the probability columns.
        skipped: see ``RowWriter``, as for what follows.
        lost: by the loader.
        columns: which probabilities are written, as ``callbacks.columns`` knows them.
        expected: images.
        known: of each image.
        kept: file for what the metrics need.
        seal: of the chain.
        task: what the network's answer means; None: one of C classes.
    """

    def __init__(
        self,
        path: Path,
        class_names: tuple[str, ...],
        skipped: Mapping[str, str] | None = None,
        lost: Mapping[int, tuple[str, str]] | None = None,
        columns: str = "all",
        expected: int = 0,
        known: Known | None = None,
        kept: Path | None = None,
        seal: str = "",
        task: Task | None = None,
    ) -> None:
        self.task = task or Single(len(class_names))
        self._columns = Columns(columns, class_names)
        told = ["prediction", "confidence", *self._columns.names]
        super().__init__(path, class_names, told, skipped, lost, expected, known, kept, seal)

    @property
    def kept_columns(self) -> list[Any]:
        """Label and probabilities."""
        return [("label", "<i4"), ("probability", "<f4", (len(self.class_names),))]

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Tensor]:
        """Label and probabilities."""
        return {"label": given.labels.cpu(), "probability": self.task.probabilities(output).cpu()}

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """The class, and how probable it and others are."""
        chances = served["probability"]
        said = self.task.decide(chances).tolist()
        rows = zip(said, chances.tolist(), self._columns.cells(chances), strict=True)
        return [[self.class_names[c], f"{row[c]:.6f}", *cells] for c, row, cells in rows]

    @property
    def probabilities(self) -> Tensor:
        """(N, C) of all images, in stream order."""
        return torch.from_numpy(self._column("probability"))

    @property
    def labels(self) -> Tensor:
        """(N,) of all images, in stream order; -1 where there is none."""
        return torch.from_numpy(self._column("label")).long()
