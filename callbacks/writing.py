"""What leaves a stream, a row an image, written as it is made."""

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

from holdfast.callbacks.columns import AUDITED, Known, audited
from holdfast.tta.batches import Described, described
from holdfast.tta.csvfile import LINK, RowFile
from holdfast.tta.distributed import batch_of_all, objects_of_all
from holdfast.tta.growing import GrowingFile
from holdfast.tta.online import ServesBatches
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs

#: The reason of an image whose broken pixels were mended.
_REPAIRED = "broken pixels were replaced"


class StreamWriter(StreamCallback, BasePredictionWriter):
    """Writes a row an image, each with the hash of the row before; place it after the guard.

    It does so in every stage of the Trainer. Images without an ``id`` in their batch are named by
    their position in the stream. Subclasses say what is taken from a batch, what a row tells of it,
    and what is kept for the metrics.

    Args:
        path: the file.
        told: columns between the id and how the image was served.
        skipped: reason for each image, by id, that could not be read: they stand at the end, with
            nothing else.
        lost: the loader's, id and reason of those that can no longer be read: they stand there too.
        known: (N,) what the image set says of each image, by name: columns behind all others.
        seal: what the chain of rows begins with, the short hash of source and stream.

    Attributes:
        unreadable: images that got no prediction, for they could not be read.
        broken: images with broken pixels.
        served: images that left so far.
        seconds: since the stream began.
    """

    def __init__(
        self,
        path: Path,
        told: Sequence[str],
        skipped: Mapping[str, str] | None = None,
        lost: Mapping[int, tuple[str, str]] | None = None,
        known: Known | None = None,
        seal: str = "",
    ) -> None:
        super().__init__("batch")
        self.path, self.skipped = path, dict(skipped or {})
        self.lost: Mapping[int, tuple[str, str]] = {} if lost is None else lost
        self.unreadable = self.broken = self.served = 0
        self.seconds = 0.0
        self._names = ["id", *told, "verdict", "served_by", "reason", *AUDITED]
        # A column of the data's that is called like one of ours is left out.
        ours = {*self._names, LINK}
        self._known = {name: of for name, of in (known or {}).items() if name not in ours}
        self._seal = seal
        self._file: RowFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._started = self._before = 0.0
        self._images = 0  # of this process
        self._batches = 0

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Any]:
        """What is taken from this process's share of a batch, an entry an image."""
        raise NotImplementedError

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """What the rows tell, of what was taken in all processes."""
        raise NotImplementedError

    def keep(self, served: Mapping[str, Any]) -> None:
        """Keep what the metrics need, of what was taken in all processes."""
        raise NotImplementedError

    def begin(self, trainer: Trainer, state: Mapping[str, Any] | None) -> None:
        """Make what the stream needs besides its file; ``state`` is of a run that was stopped."""

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files, or take up those of a run that was stopped."""
        self._started = perf_counter()
        if isinstance(pl_module, ServesBatches):
            pl_module.tells_weights = True
        state, self._taken_up = self._taken_up, None
        self.begin(trainer, state)
        if not trainer.is_global_zero:
            return
        self._file = RowFile(self.path, self._seal, state and state["file"])
        if state is None:
            self._file.write_header([*self._names, *self._known])

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow; none in other processes than the first."""
        return [] if self._file is None else [self._file]

    def progress(self) -> dict[str, Any]:
        """What it takes to go on, with values that are kept on disk."""
        return {
            "images": self._images,
            "batches": self._batches,
            "served": self.served,
            "broken": self.broken,
            "seconds": self.seconds,
            "file": self._file.state_dict() if self._file else None,
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up = progress
        self._images, self._batches = progress["images"], progress["batches"]
        self.broken, self.served = progress["broken"], progress["served"]
        self.seconds = self._before = progress["seconds"]

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take in the batch, of all processes, and write it."""
        count = len(outputs["logits"])
        given = described(batch, count, self._images)
        self._images += count
        broken = torch.zeros(count, dtype=torch.bool)
        repaired = outputs.get("broken")
        if repaired is not None:
            broken[repaired.cpu()] = True
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
        self.keep(served)
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

    def _write_rows(self, served: Mapping[str, Any], verdict: str, *looked: Any) -> None:
        assert self._file is not None
        rows = zip(
            served["id"],
            self.cells(served),
            served["served_by"],
            served["broken"].tolist(),
            self._told(served["index"].numpy()),
            strict=True,
        )
        self._file.write(
            [
                [name, *cells, verdict, served_by, _REPAIRED if repaired else "", *looked, *known]
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

    def _close(self) -> None:
        for file in self.files:
            file.close()
