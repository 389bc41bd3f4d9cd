"""The predictions that leave a stream, an image a row, written as they are made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from holdfast.callbacks.columns import AUDITED, Columns, Known, audited
from holdfast.callbacks.grown import Grown, GrownFile, Names
from holdfast.tta.batches import Described, described
from holdfast.tta.csvfile import LINK, RowFile
from holdfast.tta.distributed import batch_of_all, objects_of_all
from holdfast.tta.growing import GrowingFile
from holdfast.tta.online import ServesBatches
from holdfast.tta.stages import StreamCallback

#: File of what a run keeps for the metrics until it is done.
KEPT = "stream.served"


class RowWriter(StreamCallback, BasePredictionWriter):
    """Writes a row an image, and keeps what the metrics need; place it after the guard.

    It does so in every stage of the Trainer. Images without an ``id`` in their batch are named by
    their position in the stream. Subclasses say what is taken from a batch, what a row tells of it,
    and what is kept.

    Args:
        path: the file.
        class_names: names of the classes, or findings.
        told: columns between the id and how the image was served.
        skipped: reason for each image, by id, that could not be read: they stand at the end, with
            nothing else.
        lost: the loader's, id and reason of those that can no longer be read: they stand there too.
        expected: images of the stream, for which memory is set aside.
        known: (N,) what the image set says of each image, by name: columns behind all others.
        kept: file for what the metrics need, on which a run that was stopped goes on; None: it is
            kept in memory.
        seal: what the chain of rows begins with, the short hash of source and stream.
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
        super().__init__("batch")
        self.path = path
        self.class_names = class_names
        self.skipped = dict(skipped or {})
        self.lost: Mapping[int, tuple[str, str]] = {} if lost is None else lost
        #: Images that got no prediction, for they could not be read.
        self.unreadable = 0
        #: Images with broken pixels.
        self.broken = 0
        #: Images that left so far.
        self.served = 0
        self.seconds = 0.0
        self._names = ["id", *told, "verdict", "served_by", "reason", *AUDITED]
        # A column of the data's that is called like one of ours is left out.
        ours = {*self._names, LINK}
        self._known = {name: of for name, of in (known or {}).items() if name not in ours}
        self._expected, self._kept, self._seal = expected, kept, seal
        self._rows: Grown | GrownFile | None = None
        self._domains = Names()
        self._file: RowFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._started = self._before = 0.0
        self._images = 0  # of this process
        self._batches = 0

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files, or take up those of a run that was stopped."""
        self._started = perf_counter()
        if isinstance(pl_module, ServesBatches):
            pl_module.tells_weights = True
        state, self._taken_up = self._taken_up, None
        if self._kept is None:
            self._rows = Grown(self._kind, self._expected)
        elif trainer.is_global_zero:
            self._rows = GrownFile(self._kept, self._kind, state and state["kept"])
        if not trainer.is_global_zero:
            return
        self._file = RowFile(self.path, self._seal, state and state["file"])
        if state is None:
            self._file.write_header([*self._names, *self._known])

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow; none in other processes than the first."""
        kept = [self._rows.file] if isinstance(self._rows, GrownFile) else []
        return [*([] if self._file is None else [self._file]), *kept]

    def progress(self) -> dict[str, Any]:
        """What it takes to go on, with values that are kept on disk."""
        return {
            "images": self._images,
            "batches": self._batches,
            "served": self.served,
            "broken": self.broken,
            "seconds": self.seconds,
            "domains": self._domains.known,
            "file": self._file.state_dict() if self._file else None,
            "kept": self._rows.file.state_dict() if isinstance(self._rows, GrownFile) else None,
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up = progress
        self._images, self._batches = progress["images"], progress["batches"]
        self.broken, self.served = progress["broken"], progress["served"]
        self.seconds = self._before = progress["seconds"]
        self._domains = Names()
        for name in progress["domains"]:
            self._domains.code(name)

    @property
    def kept_columns(self) -> list[Any]:
        """What is kept of an image besides its place and domain, as numpy's types name it."""
        raise NotImplementedError

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Tensor]:
        """What is taken from this process's share of a batch, (N, ...) on the CPU, by the names of
        ``kept_columns``.
        """
        raise NotImplementedError

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """What the rows tell, of what was taken in all processes."""
        raise NotImplementedError

    @property
    def _kind(self) -> np.dtype[Any]:
        return np.dtype([("row", "<i8"), ("domain", "<i4"), *self.kept_columns])

    def on_served(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the batch, of all processes, and write it."""
        count = len(outputs["logits"])
        given = described(batch, count, self._images)
        self._images += count
        broken = torch.zeros(count, dtype=torch.bool)
        if outputs.get("broken") is not None:
            broken[outputs["broken"].cpu()] = True
        served = batch_of_all(
            {
                "id": given.ids,
                "domain": given.domains,
                "index": given.index.cpu(),
                "served_by": [outputs.get("served_by", "")] * count,
                "broken": broken,
                **self.taken(outputs["logits"].float(), batch, given),
            }
        )
        if self._file is not None:
            told = [outputs.get("verdict", ""), self._batches, *audited(outputs)]
            self._write_rows(served, *told)
        if self._rows is not None:
            self._keep(served)
        self.broken += int(served["broken"].sum())
        self.served += len(served["id"])
        self._batches += 1
        self.seconds = self._before + perf_counter() - self._started

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take in the batch, as Lightning asks a writer of predictions to."""
        self.on_served(trainer, pl_module, prediction, batch, batch_idx)

    def _keep(self, served: Mapping[str, Any]) -> None:
        assert self._rows is not None
        rows = np.empty(len(served["id"]), self._kind)
        rows["row"] = served["index"].numpy()
        rows["domain"] = [self._domains.code(name) for name in served["domain"]]
        for name, *_ in self.kept_columns:
            rows[name] = served[name].numpy()
        self._rows.add(rows)

    def _write_rows(self, served: Mapping[str, Any], verdict: str, *audited: Any) -> None:
        assert self._file is not None
        rows = zip(
            served["id"],
            self.cells(served),
            served["served_by"],
            served["broken"].tolist(),
            self._told(served["index"].numpy()),
            strict=True,
        )
        why = "broken pixels were replaced"
        self._file.write(
            [
                [name, *cells, verdict, served_by, why if repaired else "", *audited, *known]
                for name, cells, served_by, repaired, known in rows
            ]
        )

    def _told(self, rows: npt.NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """What is known of each image, by its row in the image set."""
        if not self._known:
            return [()] * len(rows)
        return list(zip(*(of[rows].tolist() for of in self._known.values()), strict=True))

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was skipped, and close the file."""
        lost = [told for part in objects_of_all(dict(self.lost)) for told in sorted(part.items())]
        rows = [*self.skipped.items(), *(told for _, told in lost)]
        self.unreadable = len(rows)
        if self._file is None:
            return
        names = [*self._names, *self._known]
        told = ({"id": name, "reason": reason} for name, reason in rows)
        self._file.write([[row.get(name, "") for name in names] for row in told])
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file; what was predicted stays written."""
        self._close()

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

    def _close(self) -> None:
        for file in self.files:
            file.close()


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
    ) -> None:
        self._columns = Columns(columns, class_names)
        told = ["prediction", "confidence", *self._columns.names]
        super().__init__(path, class_names, told, skipped, lost, expected, known, kept, seal)

    @property
    def kept_columns(self) -> list[Any]:
        """Label and probabilities."""
        return [("label", "<i4"), ("probability", "<f4", (len(self.class_names),))]

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Tensor]:
        """Label and probabilities."""
        return {"label": given.labels.cpu(), "probability": output.softmax(1).cpu()}

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """The class, and how probable it and others are."""
        confidences, said = served["probability"].max(1)
        told = self._columns.cells(served["probability"])
        rows = zip(said.tolist(), confidences.tolist(), told, strict=True)
        return [[self.class_names[c], f"{confidence:.6f}", *cells] for c, confidence, cells in rows]

    @property
    def probabilities(self) -> Tensor:
        """(N, C) of all images, in stream order."""
        return torch.from_numpy(self._column("probability"))

    @property
    def labels(self) -> Tensor:
        """(N,) of all images, in stream order; -1 where there is none."""
        return torch.from_numpy(self._column("label")).long()
