"""The masks that leave a stream, and a row about each case, written as they are made."""

import math
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
from holdfast.callbacks.grown import Grown, Names
from holdfast.callbacks.maskfiles import hash_of, in_file_space, save_mask
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.placing import Place
from holdfast.tta.batches import described, truth_of
from holdfast.tta.csvfile import LINK, RowFile
from holdfast.tta.distributed import batch_of_all, objects_of_all
from holdfast.tta.growing import GrowingFile
from holdfast.tta.masks.figures import FIGURES, UNSCORED
from holdfast.tta.masks.kept import KeptMasks
from holdfast.tta.online import ServesBatches
from holdfast.tta.stages import StreamCallback
from holdfast.tta.tasks import Task

#: Folder of the masks, within that of a run.
MASKS = "masks"
#: Columns of a mask: its file, and the short hash of what is in it.
_MASK = ("mask", "mask_hash")
#: What stands behind the figures of a case.
_HANDLED = ("verdict", "served_by", "reason", *AUDITED)


class CaseWriter(StreamCallback, BasePredictionWriter):
    """Writes ``cases.csv``, a row a case, and a mask of each; keeps what the metrics need, a few
    numbers of a case. Place it after the guard.

    Args:
        folder: of the run.
        task: what the network's answer means.
        class_names: of all classes, the background first.
        images: the target.
        lost: the loader's, id and reason of those that can no longer be read.
        known: (N,) what the image set says of each image, by name: columns behind all others.
        masks: whether to write them.
        seal: what the chain of rows begins with, the short hash of source and stream.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        class_names: tuple[str, ...],
        images: ImageSet,
        lost: Mapping[int, tuple[str, str]] | None = None,
        known: Known | None = None,
        masks: bool = True,
        seal: str = "",
    ) -> None:
        super().__init__("batch")
        self.path, self.class_names, self.images = folder / "cases.csv", class_names, images
        self.folder = folder / MASKS if masks else None
        self.task = task
        self.lost: Mapping[int, tuple[str, str]] = {} if lost is None else lost
        #: Cases that got no mask, with broken pixels, and served so far.
        self.unreadable = self.broken = self.served = 0
        self.seconds = 0.0
        kept = task.kept(class_names)
        assert isinstance(kept, KeptMasks)
        self.kept = kept
        figures = FIGURES if images.labelled else UNSCORED
        self._figures = [(figure, name) for name in kept.names for figure in figures]
        told = [f"{figure}_{name}" for figure, name in self._figures]
        self._names = ["id", *([] if self.folder is None else _MASK), *told, *_HANDLED]
        ours = {*self._names, LINK}
        self._known = {name: of for name, of in (known or {}).items() if name not in ours}
        self._rows, self._domains, self._seal = Grown(np.int64), Names(), seal
        self._file: RowFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._started = self._before = 0.0
        self._images = 0  # of this process
        self._batches = 0

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder, and open the file, or take up that of a run that was stopped."""
        self._started = perf_counter()
        if isinstance(pl_module, ServesBatches):
            pl_module.tells_weights = True
        state, self._taken_up = self._taken_up, None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            self._file = RowFile(self.path, self._seal, state and state["file"])
            if state is None:
                self._file.write_header([*self._names, *self._known])

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow; none in other processes than the first."""
        return [] if self._file is None else [self._file]

    def progress(self) -> dict[str, Any]:
        """What it takes to go on: the figures of the cases so far are few numbers."""
        figures = self.kept.figures
        return {
            "images": self._images,
            "batches": self._batches,
            "served": self.served,
            "broken": self.broken,
            "seconds": self.seconds,
            "domains": self.domains,
            "rows": torch.from_numpy(self.rows.copy()),
            "figures": {name: torch.from_numpy(values) for name, values in figures.items()},
            "file": self._file.state_dict() if self._file else None,
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up = progress
        self._images, self._batches = progress["images"], progress["batches"]
        self.broken, self.served = progress["broken"], progress["served"]
        self.seconds = self._before = progress["seconds"]
        self._rows.add(progress["rows"].numpy())
        self._domains.add(progress["domains"])
        figures = {name: values.tolist() for name, values in progress["figures"].items()}
        self.kept.take([{n: of[row] for n, of in figures.items()} for row in range(self.served)])

    def on_served(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the masks of this process, and take in the cases of all."""
        output = outputs["logits"]
        count = len(output)
        given = described(batch, count, self._images)
        self._images += count
        broken = torch.zeros(count, dtype=torch.bool)
        if outputs.get("broken") is not None:
            broken[outputs["broken"].cpu()] = True
        places = [self.images.place(row) for row in given.index.tolist()]
        spacings = [place.shown_spacing for place in places]
        truth = truth_of(batch, self.task.target, count)
        masks = self._save(self.task.probabilities(output.float()), given.ids, places)
        served = batch_of_all(
            {
                "id": given.ids,
                "index": given.index.cpu(),
                "domain": given.domains,
                "mask": masks,
                "case": self.kept.cases(output, truth, spacings),
                "served_by": [outputs.get("served_by", "")] * count,
                "broken": broken,
            }
        )
        if self._file is not None:
            self._write_rows(served, outputs.get("verdict", ""), self._batches, *audited(outputs))
        self.kept.take(served["case"])
        self.broken += int(served["broken"].sum())
        self.served += len(served["id"])
        self._batches += 1
        self._rows.add(served["index"].numpy())
        self._domains.add(served["domain"])
        self.seconds = self._before + perf_counter() - self._started

    def _save(
        self, probabilities: Tensor, ids: Sequence[str], places: Sequence[Place]
    ) -> list[tuple[str, ...]]:
        """Write the mask of each case; returns name and hash of each file, nothing without any."""
        if self.folder is None:
            return [()] * len(ids)
        files: list[tuple[str, ...]] = []
        for row, place in enumerate(places):
            file = save_mask(self.folder, ids[row], in_file_space(probabilities[row], place), place)
            files.append((file.name, hash_of(file)))
        return files

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
        place = {name: number for number, name in enumerate(self.kept.names)}
        rows = []
        for row, index in enumerate(served["index"].tolist()):
            case = served["case"][row]
            cells = [_cell(case[figure][place[name]]) for figure, name in self._figures]
            reason = "broken pixels were replaced" if served["broken"][row] else ""
            known = [of[index] for of in self._known.values()]
            told = [verdict, served["served_by"][row], reason, *looked]
            rows.append([served["id"][row], *served["mask"][row], *cells, *told, *known])
        self._file.write(rows)

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was skipped, and close the file."""
        lost = [told for part in objects_of_all(dict(self.lost)) for told in sorted(part.items())]
        rows = [*self.images.skipped.items(), *(told for _, told in lost)]
        self.unreadable = len(rows)
        if self._file is None:
            return
        names = [*self._names, *self._known]
        told = ({"id": name, "reason": reason} for name, reason in rows)
        self._file.write([[row.get(name, "") for name in names] for row in told])
        self._file.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file; what was predicted stays written."""
        if self._file is not None:
            self._file.close()

    def scores(self, **asked: Any) -> dict[str, Any]:
        """What all cases are worth; see ``Kept.scores``."""
        return self.kept.scores(self.domains, **asked)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(N,) which image of the image set each is."""
        return self._rows.values

    @property
    def domains(self) -> list[str]:
        """(N,) domain of each case."""
        return self._domains.values


def _cell(value: float) -> float | str:
    """A figure as the file holds it, in full; empty where it is not defined."""
    return "" if math.isnan(value) else value
