"""What a report needs of a run besides its records: the adapted model's own answers and features,
and the sums that alarm.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from holdfast.callbacks.base import Guard
from holdfast.callbacks.grown import Grown, Rows
from holdfast.callbacks.guard import CollapseGuard
from holdfast.callbacks.guard.modes import Memory, summed
from holdfast.callbacks.guard.signals import SIGNALS
from holdfast.datamodules.streams.window import counted
from holdfast.tta.distributed import batch_of_all

#: Images in a window of features.
WINDOW = 400


class Part(NamedTuple):
    """What is kept of a batch: features (N, D), predicted classes (N,), true classes (N,), distance
    to the source.
    """

    features: Tensor
    predictions: Tensor
    labels: Tensor
    distance: float


@dataclass(frozen=True)
class Window:
    """The last images before a moment in the stream.

    Attributes:
        batch: number of the last batch in it.
        parts: a batch each.
    """

    batch: int
    parts: tuple[Part, ...]

    @property
    def features(self) -> Tensor:
        """(N, D)."""
        return torch.cat([part.features for part in self.parts])

    @property
    def predictions(self) -> Tensor:
        """(N,) what the adapted model says of each."""
        return torch.cat([part.predictions for part in self.parts])

    @property
    def labels(self) -> Tensor:
        """(N,) true classes, -1 where unknown."""
        return torch.cat([part.labels for part in self.parts])


class AdaptedObserver(Callback):
    """Keeps the adapted model's answers and a few windows of its features; place it before the
    guard.

    Memory stays bounded: a class an image, and three windows of at most ``WINDOW`` images each, and
    of a third of the stream (of a larger batch every so many-th image is taken). Of several
    processes, windows hold the share of the one that writes the page.

    Args:
        guard: whose alarms are waited for; None without one.
        mean: (C, D) class means of the source's features.
        var: (C, D) their variances.

    Attributes:
        start: the first images.
        alarm: the last images before the first alarm; None without one.
        farthest: the images that lay farthest from the source's classes, of all windows but the
            first.
        end: the last images.
    """

    def __init__(self, guard: Guard | None, mean: Tensor, var: Tensor) -> None:
        self.guard = guard
        self.mean, self.var = mean, var.mean(0) + 1e-6
        self.start: Window | None = None
        self.alarm: Window | None = None
        self.farthest: Window | None = None
        self.end: Window | None = None
        self._predictions = Grown(np.int32)
        self._parts: deque[Part] = deque()
        self._largest = 0.0
        self._batches = 0
        self._window = WINDOW

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the source's classes to where the features are, and look how long the stream is."""
        self._batches = int(trainer.num_training_batches)
        self.mean, self.var = self.mean.to(pl_module.device), self.var.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in what the adapted model says, before the guard replaces it."""
        self._remember_alarm()
        new = counted(batch)
        predictions, features, labels = (
            outputs["logits"][new].argmax(1),
            outputs["features"][new].float(),
            batch["label"][new],
        )
        if self._batches and self.start is None:  # a short stream's end shall not be its start
            self._window = min(WINDOW, self._batches * len(predictions) // 3)
        whole = batch_of_all({"said": predictions.cpu()})
        self._predictions.add(whole["said"].numpy())
        if not len(predictions):  # of several processes, this one's share was lost
            return
        distance = ((features - self.mean[predictions]).square() / self.var).mean()
        every = slice(None, None, -(-len(predictions) // WINDOW))
        kept = [value[every].cpu() for value in (features, predictions, labels)]
        self._parts.append(Part(kept[0], kept[1], kept[2], float(distance)))
        while len(self._parts) > 1 and sum(len(part.labels) for part in self._parts) > self._window:
            self._parts.popleft()
        self.end = Window(batch_idx, tuple(self._parts))
        if self.start is None or self.start.parts[0] is self._parts[0]:
            self.start = self.end
        elif batch_idx - len(self._parts) >= self.start.batch:
            far = sum(part.distance for part in self._parts) / len(self._parts)
            if far > self._largest:
                self._largest, self.farthest = far, self.end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last batch may have raised the first alarm."""
        self._remember_alarm()

    @property
    def predictions(self) -> Tensor:
        """(N,) the adapted model's own answers, in stream order."""
        return torch.from_numpy(self._predictions.values).long()

    def _remember_alarm(self) -> None:
        if self.alarm is None and self.guard is not None and self.guard.alarms:
            self.alarm = self.end


#: Signals whose sums are drawn: those that grow by degrees.
SUMS = tuple(signal.name for signal in SIGNALS if signal.calibrated and signal.limit is not None)


class SumsObserver(Callback):
    """Keeps, batch by batch, the sums by which the guard alarms; place it after the guard.

    Attributes:
        rows: ``SUMS`` after each batch; where they raised an alarm, as they were when they did.
    """

    def __init__(self, guard: CollapseGuard) -> None:
        self.guard = guard
        self.rows = Rows()
        self._before = Memory()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the sums."""
        memory = self.guard.memory
        if outputs["verdict"] == "ALARM":  # which cleared them
            stands_for = outputs["stands_for"] or 1
            memory = summed(outputs["statistics"], self.guard.levels, self._before, stands_for)
        self.rows.add({name: memory.sums.get(name, 0.0) for name in SUMS})
        self._before = self.guard.memory


def moments_shown(observer: AdaptedObserver) -> Sequence[tuple[str, Window]]:
    """The windows worth a look, with what they are."""
    alarm, farthest, end = observer.alarm, observer.farthest, observer.end
    if observer.start is not None and end is not None and observer.start.batch == end.batch:
        return [("all along", end)]
    shown = [("at the start", observer.start)]
    if alarm is not None:
        shown.append(("before the first alarm", alarm))
    elif farthest is not None and end is not None and farthest.batch < end.batch:
        shown.append(("farthest from the source", farthest))
    shown.append(("at the end", end))
    return [(name, window) for name, window in shown if window is not None]
