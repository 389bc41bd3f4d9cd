"""One pass over a stream: adapt.py's own model, method and guard, without what it writes.

All that the benchmark asks of ``holdfast.adapting``, it asks here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.datamodules import StreamLoader
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.tasks import Task

_QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "logger": False,
}


@lru_cache(maxsize=4)
def load_checkpoint(source: str) -> SourceCheckpoint:
    """A source model, the last few of which are kept in memory."""
    return SourceCheckpoint.load(source)


def assembled(words: Sequence[str]) -> Assembly:
    """The parts of a run, as adapt.py makes them of these words."""
    config = configure(words)
    return Assembly.of(config, load_checkpoint(config.source or ""))


class Batches:
    """A stream's batches in memory: shifted once, for all passes.

    Args:
        loader: of the stream.
        task: what is asked of an image; None: one label.

    Attributes:
        truth: (N, ...) what is true of the images.
    """

    def __init__(self, loader: StreamLoader, task: Task | None = None) -> None:
        self.batches = list(loader)
        target = "label" if task is None else task.target
        self.truth = torch.cat([batch[target] for batch in self.batches])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(batch) for batch in self.batches)  # callbacks may write into a batch


@dataclass(frozen=True)
class Outcome:
    """What a pass came to.

    Attributes:
        logits: (N, C) as served, or what else the task's output is.
        alarms: how many.
        resets: how many.
        first_alarm: the batch of the first alarm; None without one.
        seconds: of the pass.
    """

    logits: Tensor
    alarms: int
    resets: int
    first_alarm: int | None
    seconds: float

    @property
    def predictions(self) -> Tensor:
        """(N,) classes."""
        return self.logits.argmax(1)

    @property
    def probabilities(self) -> Tensor:
        """(N, C)."""
        return self.logits.float().softmax(1)


class _Recorder(Callback):
    """Keeps what was served, and the first alarm; place it after the guard."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.first_alarm: int | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.logits.append(outputs["logits"].cpu())
        if self.first_alarm is None and outputs.get("verdict") == "ALARM":
            self.first_alarm = batch_idx


def run(batches: Batches, words: Sequence[str]) -> Outcome:
    """Carry a source through the batches, as ``adapt`` does.

    Args:
        batches: the stream.
        words: how adapt.py is asked for source, method and guard.
    """
    parts = assembled(words)
    seed_everything(parts.config.seed, verbose=False)
    module, guard = parts.guarded()
    recorder, clock = _Recorder(), Timer(verbose=False)
    watch = [*([guard] if guard else []), recorder, clock]
    arguments = entry.trainer_arguments({}, max_epochs=1)
    entry.create_trainer({**arguments, **_QUIET, "callbacks": watch}).fit(module, batches)
    return Outcome(
        logits=torch.cat(recorder.logits),
        alarms=guard.alarms if guard else 0,
        resets=len(guard.resets) if guard else 0,
        first_alarm=recorder.first_alarm,
        seconds=clock.time_elapsed("train"),
    )
