"""What the one thread does with a batch: the same as a run does, without a Trainer."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
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
from holdfast.callbacks.stream_checkpoint import Resumable
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.streams.window import NewestOnly
from holdfast.serving.answers import Answer, answers_of
from holdfast.serving.config import OWN_COLUMNS, ServeConfig
from holdfast.serving.lane import Item
from holdfast.serving.metrics import Figures
from holdfast.serving.network import ServedModel
from holdfast.serving.wayback import WayBack
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
        callbacks: whom a batch is told to.
        before: those of them that an answer waits for.
        newest: the one that leaves what a window showed before out of the answers.
        first: number of the batch from which callbacks count, as they do from a Trainer's first.
        way_back: to where the batch at hand began.
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
        self.first = 0
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
        self.newest = NewestOnly()
        self.before = [*watch, self.newest, self.writer]
        self.callbacks = [*self.before, self.tracer]
        self._alone = cast(Any, _Alone())

    def start(self) -> None:
        """Open files, and let the guard take the module up."""
        self.first = self.batch
        for callback in self.callbacks:
            callback.on_stream_start(self._alone, self.model.module)
        self.way_back = WayBack(self.model.module, self.model.guard)

    def serve(self, items: Sequence[Item]) -> list[Answer]:
        """Answer a batch of images, and learn from them as far as the guard lets it.

        Without a guard an answer leaves when its row is written, before the batch is learned from,
        where that changes nothing of it. A service that is killed then learns when it serves the
        batch again; where learning fails, nothing is learned, and the trace says so. A batch that
        fails before it is answered leaves nothing behind.

        Raises:
            WriteError: rows cannot be written.
        """
        self.way_back.mark()
        began = (self.batch, self.images, self.recent, self.recent_ids)
        written = self._written()
        for name, column in self._told.items():
            column.take(self.images, [_told_of(item, name) for item in items])
        turn: _Turn | None = None
        try:
            batch = self._shown(torch.stack([item.image for item in items]), items)
            turn = _Turn(self, items, batch)
            return turn.take()
        except Exception:
            if turn is None or turn.early is None:  # nobody was answered: the batch has not been
                self.batch, self.images, self.recent, self.recent_ids = began
                self.way_back.go_back()
                self._write_on(written)
            raise

    def tell(
        self,
        callbacks: Iterable[StreamCallback],
        outputs: StepOutputs,
        batch: dict[str, Any],
        number: int,
    ) -> None:
        """Tell callbacks of a batch that was served, by its number in this process."""
        for callback in callbacks:
            callback.on_served(self._alone, self.model.module, outputs, batch, number)

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

    def _written(self) -> dict[Resumable, dict[str, Any]]:
        """How far those are who write."""
        return {one: one.progress() for one in self.callbacks if isinstance(one, Resumable)}

    def _write_on(self, written: Mapping[Resumable, dict[str, Any]]) -> None:
        """Let those who write go on from there, where they wrote something since."""
        if written == self._written():
            return
        self.first = self.batch
        for one, progress in written.items():
            files = list(one.files)
            one.go_on(progress)
            cast(StreamCallback, one).on_stream_start(self._alone, self.model.module)
            for file in files:
                file.close()

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

    def version(self, outputs: StepOutputs) -> str:
        """Of the weights that the batch met; writers are told the same."""
        told = outputs.get("weights")
        version = self.model.version or (told() if told is not None else "")
        outputs["weights"] = lambda: version
        return version

    def count(self, outputs: StepOutputs, batch: int, images: int, seconds: float) -> None:
        """Count a batch that was served, and keep its events."""
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


class _Turn:
    """A batch's way through the service: it is predicted, its rows are written, its answers leave,
    it is learned from, and the trace is written.
    """

    def __init__(self, engine: Engine, items: Sequence[Item], batch: dict[str, Any]) -> None:
        self.engine, self.items, self.batch = engine, items, batch
        self.began, self.number = perf_counter(), engine.batch - engine.first
        self.answers: list[Answer] = []
        self.early: StepOutputs | None = None  # with what answers left before learning

    def take(self) -> list[Answer]:
        """Go all the way; returns the answers."""
        engine, module = self.engine, self.engine.model.module
        module.leaves = self._leave_early if engine.model.guard is None else None
        try:
            outputs = module.serve(self.batch)
        except Exception:
            if self.early is not None:
                engine.way_back.go_back()
                self.early["skipped"] = "failed"
                self._end(self.early)
            raise
        finally:
            module.leaves = None
        if self.early is None:
            self._leave(outputs, self.batch)
        else:
            engine.tell([engine.newest], outputs, self.batch, self.number)
        self._end(outputs)
        return self.answers

    def _leave_early(self, outputs: StepOutputs) -> None:
        self._leave(outputs, dict(self.batch))  # which is learned from as it is
        self.early = outputs
        for item, answer in zip(self.items, self.answers, strict=True):
            item.answer.set_result(answer)

    def _leave(self, outputs: StepOutputs, shown: dict[str, Any]) -> None:
        engine, ids = self.engine, [item.id for item in self.items]
        version = engine.version(outputs)
        engine.tell(engine.before, outputs, shown, self.number)
        self.answers = answers_of(
            engine.task, engine.class_names, ids, outputs, version, engine.batch
        )
        engine.batch, engine.images = engine.batch + 1, engine.images + len(ids)

    def _end(self, outputs: StepOutputs) -> None:
        engine, seconds = self.engine, perf_counter() - self.began
        engine.tell([engine.tracer], outputs, self.batch, self.number)
        engine.count(outputs, self.answers[0].batch, len(self.items), seconds)


def _told_of(item: Item, name: str) -> str:
    """What is written of an image in one of the service's columns."""
    if name == "received":
        return datetime.fromtimestamp(item.received, UTC).isoformat(timespec="milliseconds")
    return item.told.get(name, "")
