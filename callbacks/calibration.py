"""What the guard's statistics are on streams on which nothing is wrong: calibration at the end of
source training.

Streams are drawn from the source's validation images; each is adapted to as ``adapt.py`` would,
watched on every batch, and never corrected. Updates are not held back either where the source's own
statistics would suit the stream: there R is 1 and says nothing. A stream on which adaptation did
real harm, as its labels tell, is no example of health and is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer

from callbacks.choice import Reference
from callbacks.guard import CollapseGuard
from callbacks.settings import GuardConfig
from callbacks.verdict import Decision, Memory, Statistics, Thresholds, Verdict, decide
from datamodules import UNLABELLED, ImageSet, StreamLoader
from datamodules.bootstrap import ORDERS, bootstrapped
from tta import entry
from tta.adaptation import AdaptationModule
from tta.calibration import calibrated, fit_tail
from tta.candidates import Candidates
from tta.checkpoint import SourceCheckpoint
from tta.config import Choice, closest, read_arguments, resolve
from tta.errors import InputError
from tta.methods import METHODS, Prediction, create_method
from tta.methods.scaling import scaled
from tta.metrics import balanced_accuracy
from tta.options import option

#: Points of balanced accuracy that the adapted model may lie below the control in the second half
#: of a healthy stream.
_TOLERANCE = 3.0
#: Streams of which a tail can be told at all.
_FEWEST = 6


@dataclass
class NoCalibrationConfig:
    """Leave the guard's thresholds at their defaults."""


@dataclass
class CalibrationConfig:
    """Streams of validation images, adapted to, that show how far the guard's statistics go on
    healthy streams.
    """

    methods: list[str] = option(
        ["tent", "dsbr"], "methods that adapt, in turn, with the options of their YAML"
    )
    streams: int = option(36, "streams; iid, skewed and in class blocks, under mild shifts")
    batches: int = option(20, "batches of a stream")
    batch_size: int = option(64, "images a batch")

    def __post_init__(self) -> None:
        if not self.methods:
            raise InputError(
                "calibrate.methods is empty: name some, calibrate.methods=[tent,dsbr], or "
                "calibrate=off"
            )
        for name in self.methods:
            if name not in METHODS:
                raise InputError(
                    f"calibrate.methods has an unknown method {name!r}: {closest(name, METHODS)}"
                )
            if METHODS[name].static:
                raise InputError(
                    f"calibrate.methods has {name}, which never adapts and so tells nothing: leave "
                    "it out"
                )
        for name, least in (("streams", _FEWEST), ("batches", 4), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise InputError(f"calibrate.{name} must be at least {least}")


def calibrate(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    config: CalibrationConfig,
    *,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The tail of each threshold's statistic over healthy streams, as
    ``SourceCheckpoint.calibration`` keeps it.

    Args:
        checkpoint: the source.
        images: its validation images.
        config: how many streams, how long, and who adapts.
        seed: of the streams.
        trainer: arguments of lightning.Trainer; only the accelerator and the precision are used.

    Returns:
        Plain numbers and strings: ``tails`` by the threshold's name, and how they came about; None
        where too few streams were healthy.

    Raises:
        InputError: so few labelled images that a batch would repeat them, or images of a single
            class.
    """
    known = int((images.labels != UNLABELLED).sum())
    if known < config.batch_size:
        raise InputError(
            f"the {known} labelled validation images are fewer than a batch of calibration, so its "
            "streams "
            f"would repeat them: label {config.batch_size} or more, take smaller batches, "
            "calibrate.batch_size=N, or calibrate=off"
        )
    traces = [
        trace
        for trace in null_traces(checkpoint, images, config, seed=seed, trainer=trainer)
        if trace
    ]
    if len(traces) < _FEWEST:
        return None
    return {
        "streams": len(traces),
        "left_out": config.streams - len(traces),
        "batches": config.batches,
        "batch_size": config.batch_size,
        "methods": list(config.methods),
        "tails": tails(traces, config.batches),
    }


def null_traces(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    config: CalibrationConfig,
    *,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
) -> Iterator[list[Statistics]]:
    """The guard's statistics on each stream, check by check; none where the stream was not healthy.

    The methods take turns, a stream of each order at a time. Arguments are those of ``calibrate``.
    """
    methods = [_with_options(name) for name in config.methods]
    chosen = {
        key: value for key, value in (trainer or {}).items() if key in ("accelerator", "precision")
    }
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "devices": 1,
    }
    arguments = {**entry.trainer_arguments(chosen, max_epochs=1), **quiet}
    for number, stream in enumerate(
        bootstrapped(images, config.streams, config.batches * config.batch_size, seed)
    ):
        observer = _Observer(checkpoint)
        module = _module(
            checkpoint, methods[number // len(ORDERS) % len(methods)], config.batch_size
        )
        loader = StreamLoader(images, stream, config.batch_size)
        entry.create_trainer({**arguments, "callbacks": [observer]}).fit(module, loader)
        yield observer.trace if observer.healthy else []


def tails(traces: Sequence[Sequence[Statistics]], batches: int) -> dict[str, dict[str, float]]:
    """The tail of each threshold's statistic, by the threshold's name.

    Levels of the watch come first; what the verdict sums beyond them is then had by replaying it
    over the traces.

    Args:
        traces: statistics of each stream, check by check.
        batches: of a stream.
    """
    falls = [
        max((1 - s.ratio for s in trace if s.ratio is not None), default=0.0) for trace in traces
    ]
    drifts = [max((s.drift for s in trace if s.drift is not None), default=0.0) for trace in traces]
    levels = {
        "watch_ratio": fit_tail([max(fall, 0.0) for fall in falls]),
        "watch_drift": fit_tail(drifts),
    }
    known = {"batches": batches, "tails": levels}
    watch = {name: value for name in levels if (value := calibrated(known, name, 1.0)) is not None}
    sums: dict[str, list[float]] = {}
    for trace in traces:
        memory, largest = Memory(), dict.fromkeys(_summed(Memory()), 0.0)
        for statistics in trace:
            memory = decide(statistics, Thresholds(**watch), memory).memory
            largest = {name: max(largest[name], value) for name, value in _summed(memory).items()}
        for name, value in largest.items():
            sums.setdefault(f"alarm_{name}", []).append(value)
    return {**levels, **{name: fit_tail(values) for name, values in sums.items()}}


def _summed(memory: Memory) -> dict[str, float]:
    """What the memory sums up until the alarm."""
    return {
        name: value for name, value in asdict(memory).items() if name in ("shortfall", "excess")
    }


@dataclass
class _Adaptation:
    method: Any = option("tent", "adaptation method")


def _with_options(name: str) -> Choice[Any]:
    """A method with the options of its YAML."""
    groups = {"method": {kind: method.Config for kind, method in METHODS.items()}}
    choice: Choice[Any] = resolve(
        _Adaptation, groups, read_arguments([f"method={name}"], groups)
    ).method
    return choice


def _module(checkpoint: SourceCheckpoint, choice: Choice[Any], batch_size: int) -> AdaptationModule:
    """The method as ``adapt.py`` runs it under the guard, but that it never goes back to the
    source's statistics.
    """
    published = METHODS[choice.kind].Config
    facts = {name: getattr(checkpoint, name) for name in METHODS[choice.kind].uses}
    kind, size = checkpoint.network["kind"], checkpoint.size
    options = asdict(
        scaled(choice.options, published, model=kind, size=size, batch_size=batch_size)
    )
    method = create_method(
        choice.kind, checkpoint.build(), num_classes=len(checkpoint.class_names), **options, **facts
    )
    twins = Candidates(method, checkpoint.layer_moments)
    twins.names = tuple(name for name in twins.names if name != "source") or twins.names
    return AdaptationModule(method, batch_size, candidates=twins)


class _Observer(CollapseGuard):
    """Chooses and measures as the guard does, on every batch, and judges nothing."""

    def __init__(self, checkpoint: SourceCheckpoint) -> None:
        reference = Reference(checkpoint.feature_mean, checkpoint.feature_var)
        super().__init__(checkpoint.class_names, GuardConfig(longest=1), reference)
        self.trace: list[Statistics] = []
        self._answers: list[torch.Tensor] = []

    @property
    def healthy(self) -> bool:
        """Whether the adapted model was about as good as the control in the second half of the
        stream, or better.
        """
        if not self._answers:
            return True
        adapted, control, labels = torch.cat(self._answers[len(self._answers) // 2 :], 1)
        classes = len(self.class_names)
        return (
            balanced_accuracy(adapted, labels, classes)
            >= balanced_accuracy(control, labels, classes) - _TOLERANCE
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, and keep what was measured."""
        self._labels = batch["label"]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _measure(self, adapted: Prediction, control: Prediction) -> Statistics:
        statistics = super()._measure(adapted, control)
        self.trace.append(statistics)
        self._answers.append(
            torch.stack([adapted.logits.argmax(1), control.logits.argmax(1), self._labels]).cpu()
        )
        return statistics

    def _judge(self, statistics: Statistics, events: list[dict[str, Any]]) -> Decision:
        decision = super()._judge(Statistics(lead=statistics.lead), events)
        if decision.verdict.reason == "statistics":
            return decision
        return Decision(
            Verdict("OK", "ok", "Nothing else is judged while thresholds are calibrated.")
        )
