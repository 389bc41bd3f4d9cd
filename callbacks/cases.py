"""The masks that leave a stream, and a row about each case, written as they are made."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import Trainer
from torch import Tensor

from holdfast.callbacks.columns import Known
from holdfast.callbacks.grown import Grown, Names
from holdfast.callbacks.maskfiles import hash_of, in_file_space, save_mask
from holdfast.callbacks.writing import StreamWriter
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.placing import Place
from holdfast.tta.batches import Described, truth_of
from holdfast.tta.masks.figures import FIGURES, UNSCORED
from holdfast.tta.masks.kept import KeptMasks
from holdfast.tta.tasks import Task

#: Folder of the masks, within that of a run.
MASKS = "masks"
#: Columns of a mask: its file, and the short hash of what is in it.
_MASK = ("mask", "mask_hash")


class CaseWriter(StreamWriter):
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
        kept = task.kept(class_names)
        assert isinstance(kept, KeptMasks)
        self.kept = kept
        figures = FIGURES if images.labelled else UNSCORED
        self._figures = [(figure, name) for name in kept.names for figure in figures]
        told = [f"{figure}_{name}" for figure, name in self._figures]
        self.folder = folder / MASKS if masks else None
        told = [*(_MASK if masks else ()), *told]
        super().__init__(folder / "cases.csv", told, images.skipped, lost, known, seal)
        self.task, self.class_names, self.images = task, class_names, images
        self._rows, self._domains = Grown(np.int64), Names()

    def begin(self, trainer: Trainer, state: Mapping[str, Any] | None) -> None:
        """Make the folder of the masks."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def progress(self) -> dict[str, Any]:
        """What it takes to go on: the figures of the cases so far are few numbers."""
        figures = self.kept.figures
        return {
            **super().progress(),
            "domains": self.domains,
            "rows": torch.from_numpy(self.rows.copy()),
            "figures": {name: torch.from_numpy(values) for name, values in figures.items()},
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        super().go_on(progress)
        self._rows.add(progress["rows"].numpy())
        self._domains.add(progress["domains"])
        figures = {name: values.tolist() for name, values in progress["figures"].items()}
        self.kept.take([{n: of[row] for n, of in figures.items()} for row in range(self.served)])

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Any]:
        """Write the masks of this process; returns what is in each, and its figures."""
        places = [self.images.place(row) for row in given.index.tolist()]
        spacings = [place.shown_spacing for place in places]
        truth = truth_of(batch, self.task.target, len(output))
        masks = self._save(self.task.probabilities(output), given.ids, places)
        return {"mask": masks, "case": self.kept.cases(output, truth, spacings)}

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

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """The mask's file, and the figures of each class."""
        place = {name: number for number, name in enumerate(self.kept.names)}
        return [
            [*mask, *(_cell(case[figure][place[name]]) for figure, name in self._figures)]
            for mask, case in zip(served["mask"], served["case"], strict=True)
        ]

    def keep(self, served: Mapping[str, Any]) -> None:
        """Keep the figures of the cases."""
        self.kept.take(served["case"])
        self._rows.add(served["index"].numpy())
        self._domains.add(served["domain"])

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
