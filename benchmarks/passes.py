"""One pass over a stream: adapt.py's own model, method and guard, without what it writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig
from holdfast.datamodules import StreamLoader
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint

#: Within so many images from its start, a stream's running loss is held against that many (see
#: ``running_loss``).
_WARM_UP = 512


class Batches:
    """A stream's batches in memory: shifted once, for all passes."""

    def __init__(self, loader: StreamLoader) -> None:
        self.batches = list(loader)
        self.labels = torch.cat([batch["label"] for batch in self.batches])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(batch) for batch in self.batches)  # callbacks may write into a batch


@dataclass(frozen=True)
class Outcome:
    """What a pass came to.

    Attributes:
        predictions: (N,) classes as served.
        probabilities: (N, C) as served.
        alarms: how many.
        resets: how many.
        first_alarm: the batch of the first alarm; None without one.
        seconds: of the pass.
        own_seconds: of it, those that this process was computing.
        guard_seconds: of these, the guard's.
    """

    predictions: Tensor
    probabilities: Tensor
    alarms: int
    resets: int
    first_alarm: int | None
    seconds: float
    own_seconds: float
    guard_seconds: float


class _Mark(Callback):
    """Notes when the guard's turn begins; place it before the guard."""

    def __init__(self) -> None:
        self.time = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        self.time = process_time()


class Recorder(Callback):
    """Keeps predictions, the first alarm and the time of a pass; place it after the guard."""

    def __init__(self, mark: _Mark) -> None:
        self.mark = mark
        self.predictions: list[Tensor] = []
        self.probabilities: list[Tensor] = []
        self.first_alarm: int | None = None
        self.seconds = self.own_seconds = self.guard_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.seconds, self.own_seconds = perf_counter(), process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep what was served, and how long the guard took."""
        self.guard_seconds += process_time() - self.mark.time
        self.predictions.append(outputs["logits"].argmax(1).cpu())
        self.probabilities.append(outputs["logits"].float().softmax(1).cpu())
        if self.first_alarm is None and outputs.get("verdict") == "ALARM":
            self.first_alarm = batch_idx

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.seconds, self.own_seconds = (
            perf_counter() - self.seconds,
            process_time() - self.own_seconds,
        )


def run(batches: Batches, config: AdaptConfig, checkpoint: SourceCheckpoint) -> Outcome:
    """Carry the source through the batches, as ``adapt`` does.

    Args:
        batches: the stream.
        config: method and guard.
        checkpoint: the source.
    """
    seed_everything(config.seed, verbose=False)
    module, guard = Assembly.of(config, checkpoint).guarded()
    mark = _Mark()
    recorder = Recorder(mark)
    quiet = {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    trainer = entry.create_trainer(
        {
            **entry.trainer_arguments({}, max_epochs=1),
            **quiet,
            "callbacks": [mark, *([guard] if guard else []), recorder],
        }
    )
    trainer.fit(module, batches)
    return Outcome(
        predictions=torch.cat(recorder.predictions),
        probabilities=torch.cat(recorder.probabilities),
        alarms=guard.alarms if guard else 0,
        resets=len(guard.resets) if guard else 0,
        first_alarm=recorder.first_alarm,
        seconds=recorder.seconds,
        own_seconds=recorder.own_seconds,
        guard_seconds=recorder.guard_seconds,
    )


def running_loss(
    predictions: Tensor, references: Sequence[Tensor], labels: Tensor, batch_size: int
) -> Tensor:
    """Points of balanced accuracy by which predictions lie below the better of the references, from
    the stream's start on.

    It is the difference of running balanced accuracies over the same images, except that a class
    counts as if it had shown at least its share of 512 images: the first few images of a rare class
    would otherwise be worth many points each.

    Args:
        predictions: (N,) classes.
        references: other predictions (N,) of the same images.
        labels: (N,) true classes, -1 where unknown.
        batch_size: images a batch.

    Returns:
        (B,) points after each batch; below 0 where predictions are better.
    """
    ends = torch.arange(batch_size, len(labels) + batch_size, batch_size).clamp(max=len(labels)) - 1
    classes = torch.unique(labels[labels >= 0])
    members = (labels == classes[:, None]).double()
    least = members.mean(1, keepdim=True) * min(_WARM_UP, len(labels))
    shown = members.cumsum(1).maximum(least)
    right = (predictions == labels).double()
    losses = [
        (((reference == labels).double() - right) * members).cumsum(1) / shown
        for reference in references
    ]
    return 100 * torch.stack(losses).mean(1).amax(0)[ends]


def loss_before(alarm: int, losses: Tensor) -> float:
    """The largest running loss before the batch of the alarm; 0 where there was none.

    Args:
        alarm: number of the batch that raised it.
        losses: (B,) from ``running_loss``.
    """
    return float(losses[:alarm].clamp(min=0).amax()) if alarm else 0.0
