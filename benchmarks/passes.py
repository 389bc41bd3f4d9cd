"""One pass over a stream: adapt.py's own model, method and guard, without what it writes.

All that the benchmark asks of ``holdfast.adapting``, it asks here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.datamodules import StreamLoader
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint

#: Images of the stream on which guards are timed, 100 batches of 64. A guard looks mostly at the
#: start: a longer stream costs less, a shorter one more.
_TIMED = 6400
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
        guard_cost: the guard's time over that of all else, as this process was computing.
    """

    predictions: Tensor
    probabilities: Tensor
    alarms: int
    resets: int
    first_alarm: int | None
    seconds: float
    guard_cost: float


class _Mark(Callback):
    """Notes when the guard's turn begins; place it before the guard."""

    time = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.time = process_time()


class _Recorder(Callback):
    """Keeps what was served, the first alarm and the time of a pass; place it after the guard."""

    def __init__(self, mark: _Mark) -> None:
        self.mark = mark
        self.predictions: list[Tensor] = []
        self.probabilities: list[Tensor] = []
        self.first_alarm: int | None = None
        self.seconds = self.own_seconds = self.guard_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds, self.own_seconds = perf_counter(), process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.guard_seconds += process_time() - self.mark.time
        self.predictions.append(outputs["logits"].argmax(1).cpu())
        self.probabilities.append(outputs["logits"].float().softmax(1).cpu())
        if self.first_alarm is None and outputs.get("verdict") == "ALARM":
            self.first_alarm = batch_idx

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = perf_counter() - self.seconds
        self.own_seconds = process_time() - self.own_seconds


def run(batches: Batches, words: Sequence[str]) -> Outcome:
    """Carry a source through the batches, as ``adapt`` does.

    Args:
        batches: the stream.
        words: how adapt.py is asked for source, method and guard.
    """
    parts = assembled(words)
    seed_everything(parts.config.seed, verbose=False)
    module, guard = parts.guarded()
    mark = _Mark()
    recorder = _Recorder(mark)
    watch = [mark, *([guard] if guard else []), recorder]
    arguments = entry.trainer_arguments({}, max_epochs=1)
    entry.create_trainer({**arguments, **_QUIET, "callbacks": watch}).fit(module, batches)
    rest = recorder.own_seconds - recorder.guard_seconds
    return Outcome(
        predictions=torch.cat(recorder.predictions),
        probabilities=torch.cat(recorder.probabilities),
        alarms=guard.alarms if guard else 0,
        resets=len(guard.resets) if guard else 0,
        first_alarm=recorder.first_alarm,
        seconds=recorder.seconds,
        guard_cost=recorder.guard_seconds / rest,
    )


def guard_costs(
    source: str,
    guards: Mapping[str, Sequence[str]],
    data: Sequence[str],
    rounds: int,
    progress: Callable[[], object],
) -> dict[str, float]:
    """The guard's time over that of all else in the same pass: the median over rounds, in which
    all take turns.

    Step and guard take turns batch by batch, so a machine that becomes slower or faster meanwhile
    is no part of the ratio. The stream is the target, in random order, and Tent at its default
    rate: a calm one, but not so near to the source that the guard would hold updates back, and save
    time. Time is the process's, since others on the machine are none of its cost.

    Args:
        source: folder of the source model.
        guards: how adapt.py is asked for each, by name.
        data: how adapt.py is asked for the data set.
        rounds: at least 1.
        progress: called after each pass.
    """
    words = [f"source={source}", *data, "method=tent", "method.optimizer=adam", "method.lr=1e-3"]
    images = assembled(words).images
    words.append(f"stream.passes={-(-_TIMED // len(images))}")
    calm = assembled(words)
    items, batch_size = calm.stream.part(slice(_TIMED)), calm.config.stream.options.batch_size
    batches = Batches(StreamLoader(images, items, batch_size))
    ratios: dict[str, list[float]] = {name: [] for name in guards}
    for _ in range(rounds):
        for name, asked in guards.items():
            outcome = run(batches, [*words, *asked])
            ratios[name].append(outcome.guard_cost)
            progress()
    return {name: round(median(values), 4) for name, values in ratios.items()}
