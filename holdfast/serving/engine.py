"""What the one thread does with a batch: the same as a run does, without a Trainer."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, time
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks import Alerts, CollapseGuard, TraceWriter
from holdfast.callbacks.leaving import row_writer
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.streams.window import NewestOnly
from holdfast.serving.answers import Answer, answers_of
from holdfast.serving.config import OWN_COLUMNS, ServeConfig
from holdfast.serving.lane import Item
from holdfast.serving.metrics import Figures
from holdfast.serving.network import ServedModel
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs

#: Events that the status page may show.
_EVENTS = 50


class _Alone:
    """What callbacks ask of a Trainer where there is none: one process, and no loggers."""

    is_global_zero = True
    loggers: tuple[()] = ()


class _RequestColumn:
    """A column of what requests say of images, by their numbers in the stream: of the batch at
    hand alone.
    """

    def __init__(self) -> None:
        self._first, self._values = 0, np.empty(0, object)

    def take(self, first: int, values: Sequence[str]) -> None:
        """The values of a batch, whose first image has this number."""
        self._first, self._values = first, np.array(values, object)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return self._values[rows - self._first]


class Engine:
    """Serves batches with a model that it owns, and writes what a run writes.

    Args:
        config: of the service.
        assembly: that the model was made by.
        model: what serves.
        folder: of the results.
        figures: where batches are counted.
        seal: what the chains of rows begin with.

    Attributes:
        batch: number of the next batch.
        images: that were served before it.
        recent: images that a window shows again; None: none yet.
        recent_ids: their names.
        events: the last ones.
    """

    def __init__(
        self,
        config: ServeConfig,
        assembly: Assembly,
        model: ServedModel,
        folder: Path,
        figures: Figures,
        seal: str,
    ) -> None:
        self.model, self.figures = model, figures
        self.class_names = tuple(assembly.checkpoint.class_names)
        self.task = model.module.method.task
        self.window = config.serve.window
        self.batch = self.images = 0
        self._first = 0  # batch of this process, as a Trainer counts
        self.recent: Tensor | None = None
        self.recent_ids: list[str] = []
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._told = {name: _RequestColumn() for name in (*OWN_COLUMNS, *config.serve.metadata)}
        self.writer = row_writer(
            self.task,
            folder / "predictions.csv",
            self.class_names,
            config.predictions.columns,
            known=cast(Any, self._told),
            kept=folder / "stream.served",
            seal=seal,
        )
        self.tracer = TraceWriter(folder, (), seal)
        watch: list[StreamCallback] = [] if model.guard is None else [model.guard]
        if isinstance(model.guard, CollapseGuard):
            watch.append(Alerts(model.guard.config.alert, folder.name))
        self._newest = NewestOnly()
        self._before = [*watch, self._newest, self.writer]  # what an answer waits for
        self.callbacks = [*self._before, self.tracer]
        self._alone = cast(Any, _Alone())

    def start(self) -> None:
        """Open files, and let the guard take the module up."""
        self._first = self.batch
        for callback in self.callbacks:
            callback.on_stream_start(self._alone, self.model.module)

    def serve(self, items: Sequence[Item]) -> list[Answer]:
        """Answer a batch of images, and learn from them as far as the guard lets it.

        Without a guard an answer leaves when its row is written, before the batch is learned from,
        where that changes nothing of it. A service that is killed then learns when it serves the
        batch again; where learning fails, the trace says so.

        Raises:
            WriteError: rows cannot be written.
        """
        began, module, number = perf_counter(), self.model.module, self.batch - self._first
        for name, column in self._told.items():
            column.take(self.images, [_told_of(item, name) for item in items])
        batch = self._shown(torch.stack([item.image for item in items]), items)
        answers: list[Answer] = []
        early: list[StepOutputs] = []  # what answers left with before the batch was learned from

        def leave(outputs: StepOutputs, shown: dict[str, Any]) -> None:
            version = self._version(outputs)
            for callback in self._before:
                callback.on_served(self._alone, module, outputs, shown, number)
            answers.extend(self._answers(items, outputs, version))
            self.batch, self.images = self.batch + 1, self.images + len(items)

        def leave_early(outputs: StepOutputs) -> None:
            leave(outputs, dict(batch))  # which is learned from as it is
            early.append(outputs)
            for item, answer in zip(items, answers, strict=True):
                item.answer.set_result(answer)

        def end(outputs: StepOutputs) -> None:
            self.tracer.on_served(self._alone, module, outputs, batch, number)
            self._count(outputs, answers[0].batch, len(items), perf_counter() - began)

        module.leaves = leave_early if self.model.guard is None else None
        try:
            outputs = module.serve(batch)
        except Exception:
            if early:
                early[0]["skipped"] = "failed"
                end(early[0])
            raise
        finally:
            module.leaves = None
        if early:
            self._newest.on_served(self._alone, module, outputs, batch, number)
        else:
            leave(outputs, batch)
        end(outputs)
        return answers

    def close(self) -> None:
        """Close files, and let alerts arrive."""
        for callback in self.callbacks:
            callback.on_stream_end(self._alone, self.model.module)

    @property
    def mode(self) -> str | None:
        """The guard's; None without."""
        guard = self.model.guard
        return guard.memory.mode if isinstance(guard, CollapseGuard) else None

    @property
    def levels(self) -> Mapping[str, float]:
        """The guard's, to mark in curves."""
        guard = self.model.guard
        return guard.levels.shown if isinstance(guard, CollapseGuard) else {}

    def _shown(self, images: Tensor, items: Sequence[Item]) -> dict[str, Any]:
        """The batch that the model sees: of a window, with the newest images before these."""
        seen, ids = 0, [item.id for item in items]
        if self.window is not None:
            before = images[:0] if self.recent is None else self.recent
            before = before[max(0, len(before) + len(images) - self.window) :]
            seen = len(before)
            ids = [*self.recent_ids[len(self.recent_ids) - seen :], *ids]
            images = torch.cat([before, images])
            kept = max(0, len(images) - self.window + 1)
            self.recent, self.recent_ids = images[kept:], ids[kept:]
        first = self.images - seen
        return {
            "image": images.to(self.model.module.device),
            "id": ids,
            "label": torch.full((len(images),), UNLABELLED),
            "index": torch.arange(first, first + len(images)),
            "seen_before": seen,
            "lost": (),
        }

    def _version(self, outputs: StepOutputs) -> str:
        """Of the weights that the batch met; writers are told the same."""
        told = outputs.get("weights")
        version = self.model.version or (told() if told is not None else "")
        outputs["weights"] = lambda: version
        return version

    def _answers(self, items: Sequence[Item], outputs: StepOutputs, version: str) -> list[Answer]:
        ids = [item.id for item in items]
        return answers_of(self.task, self.class_names, ids, outputs, version, self.batch)

    def _count(self, outputs: StepOutputs, batch: int, images: int, seconds: float) -> None:
        probabilities = self.task.probabilities(outputs["logits"].float())
        entropy = torch.special.entr(probabilities).sum(1).mean()
        row = {
            "batch": batch,
            "entropy": float(entropy),
            **outputs.get("statistics", {}),
            **{name: outputs.get(name) for name in ("verdict", "mode", "choice", "served_by")},
            "skipped": outputs.get("skipped"),
        }
        self.figures.add(row, images, seconds)
        self.events += [{**event, "time": time()} for event in outputs.get("events", ())]


def _told_of(item: Item, name: str) -> str:
    """What is written of an image in one of the service's columns."""
    if name == "received":
        return datetime.fromtimestamp(item.received, UTC).isoformat(timespec="milliseconds")
    return item.told.get(name, "")
