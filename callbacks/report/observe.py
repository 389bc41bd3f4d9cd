"""What a report needs of a run besides its records: the adapted model's own answers and features,
and the sums that alarm.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from holdfast.callbacks.base import Guard
from holdfast.callbacks.grown import Grown, GrownFile
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.guard.modes import Memory, summed
from holdfast.callbacks.guard.signals import SIGNALS
from holdfast.datamodules.streams.window import counted
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.growing import GrowingFile

#: Images in a window of features.
WINDOW = 400


class Part(NamedTuple):
    """What is kept of a batch: features (N, D), predicted classes (N,), true classes (N,), distance
    to the source, and its number.
    """

    features: Tensor
    predictions: Tensor
    labels: Tensor
    distance: float
    batch: int


@dataclass(frozen=True)
class FeatureWindow:
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
        kept: file for the answers, on which a run that was stopped goes on; None: memory.

    Attributes:
        start: the first images.
        alarm: the last images before the first alarm; None without one.
        farthest: the images that lay farthest from the source's classes, of all windows but the
            first.
        end: the last images.
    """

    def __init__(
        self, guard: Guard | None, mean: Tensor, var: Tensor, kept: Path | None = None
    ) -> None:
        self.guard = guard
        self.mean, self.var = mean, var.mean(0) + 1e-6
        self.start: FeatureWindow | None = None
        self.alarm: FeatureWindow | None = None
        self.farthest: FeatureWindow | None = None
        self.end: FeatureWindow | None = None
        self._kept = kept
        self._predictions: Grown | GrownFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._before = self._next = 0
        self._parts: deque[Part] = deque()
        self._largest = 0.0
        self._batches = 0
        self._window = WINDOW

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the source's classes to where the features are, and look how long the stream is."""
        self._batches = int(trainer.num_training_batches)
        state, self._taken_up = self._taken_up, None
        if self._kept is None:
            self._predictions = Grown(np.int32)
        elif trainer.is_global_zero:
            self._predictions = GrownFile(self._kept, np.int32, state and state["kept"])
        self.mean, self.var = self.mean.to(pl_module.device), self.var.to(pl_module.device)

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow."""
        return [self._predictions.file] if isinstance(self._predictions, GrownFile) else []

    def progress(self) -> dict[str, Any]:
        """What it takes to go on."""
        shown = {name: getattr(self, name) for name in _WINDOWS}
        return {
            "windows": {name: one and _plain(one) for name, one in shown.items()},
            "parts": [list(part) for part in self._parts],
            "largest": self._largest,
            "window": self._window,
            "batches": self._next,
            "kept": self.files[0].state_dict() if self.files else None,
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up = progress
        for name, window in progress["windows"].items():
            setattr(self, name, window and _window(window))
        self._parts = deque(Part(*part) for part in progress["parts"])
        self._largest, self._window = progress["largest"], progress["window"]
        self._before = self._next = progress["batches"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in what the adapted model says, before the guard replaces it."""
        number = self._before + batch_idx
        self._next = number + 1
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
        if self._predictions is not None:
            self._predictions.add(whole["said"].numpy())
        if not len(predictions):  # of several processes, this one's share was lost
            return
        distance = ((features - self.mean[predictions]).square() / self.var).mean()
        every = slice(None, None, -(-len(predictions) // WINDOW))
        kept = [value[every].cpu() for value in (features, predictions, labels)]
        self._parts.append(Part(kept[0], kept[1], kept[2], float(distance), number))
        while len(self._parts) > 1 and sum(len(part.labels) for part in self._parts) > self._window:
            self._parts.popleft()
        self.end = FeatureWindow(number, tuple(self._parts))
        if self.start is None or self.start.parts[0].batch == self._parts[0].batch:
            self.start = self.end
        elif number - len(self._parts) >= self.start.batch:
            far = sum(part.distance for part in self._parts) / len(self._parts)
            if far > self._largest:
                self._largest, self.farthest = far, self.end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last batch may have raised the first alarm."""
        self._remember_alarm()

    @property
    def predictions(self) -> Tensor:
        """(N,) the adapted model's own answers, in stream order."""
        said = np.empty(0, np.int32) if self._predictions is None else self._predictions.values
        return torch.from_numpy(said).long()

    def _remember_alarm(self) -> None:
        if self.alarm is None and self.guard is not None and self.guard.alarms:
            self.alarm = self.end


#: The windows that ``AdaptedObserver`` keeps.
_WINDOWS = ("start", "alarm", "farthest", "end")


def _plain(window: FeatureWindow) -> dict[str, Any]:
    return {"batch": window.batch, "parts": [list(part) for part in window.parts]}


def _window(state: Mapping[str, Any]) -> FeatureWindow:
    return FeatureWindow(state["batch"], tuple(Part(*part) for part in state["parts"]))


#: Signals whose sums are drawn: those that grow by degrees.
SUMS = tuple(signal.name for signal in SIGNALS if signal.calibrated and signal.limit is not None)


_SUMS_KIND = np.dtype([(name, "<f8") for name in SUMS])


class SumsObserver(Callback):
    """Keeps, batch by batch, the sums by which the guard alarms; place it after the guard.

    Args:
        guard: whose sums.
        kept: file for them, on which a run that was stopped goes on; None: memory.
    """

    def __init__(self, guard: CollapseGuard, kept: Path | None = None) -> None:
        self.guard = guard
        self._kept = kept
        self._sums: Grown | GrownFile | None = None
        self._taken_up: Mapping[str, Any] | None = None
        self._before = Memory()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, or take up that of a run that was stopped."""
        state, self._taken_up = self._taken_up, None
        if self._kept is None:
            self._sums = Grown(_SUMS_KIND)
        elif trainer.is_global_zero:
            self._sums = GrownFile(self._kept, _SUMS_KIND, state and state["kept"])

    @property
    def rows(self) -> list[dict[str, float]]:
        """``SUMS`` after each batch; where they raised an alarm, as they were when they did."""
        values = np.empty(0, _SUMS_KIND) if self._sums is None else self._sums.values
        return [dict(zip(SUMS, row, strict=True)) for row in values.tolist()]

    @property
    def files(self) -> list[GrowingFile]:
        """Those that grow."""
        return [self._sums.file] if isinstance(self._sums, GrownFile) else []

    def progress(self) -> dict[str, Any]:
        """What it takes to go on."""
        memory = {**asdict(self._before), "alarms": list(self._before.alarms)}
        return {"memory": memory, "kept": self.files[0].state_dict() if self.files else None}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken."""
        self._taken_up, memory = progress, progress["memory"]
        self._before = Memory(**{**memory, "alarms": tuple(memory["alarms"])})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the sums."""
        memory = self.guard.memory
        if outputs["verdict"] == "ALARM":  # which cleared them
            stands_for = outputs["stands_for"] or 1
            memory = summed(outputs["statistics"], self.guard.levels, self._before, stands_for)
        if self._sums is not None:
            sums = tuple(memory.sums.get(name, 0.0) for name in SUMS)
            self._sums.add(np.array([sums], _SUMS_KIND))
        self._before = self.guard.memory


def moments_shown(observer: AdaptedObserver) -> Sequence[tuple[str, FeatureWindow]]:
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
