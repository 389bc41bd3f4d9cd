"""What the guard's numbers are on the checkpoint's own streams: calibration at the end of source
training.

Streams are drawn from the source's validation images (``datamodules.bootstrap``): every order of
arrival, under corruptions of random strength. On each a method adapts as ``adapt.py`` would,
watched and never corrected. What is true of the images tells on which streams adaptation did no
harm, by the figure that the task watches; from these follow the signals' levels and limits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tqdm import tqdm

from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.guard.heard import Asked, Heard
from holdfast.callbacks.guard.modes import (
    Decision,
    Levels,
    Memory,
    Verdict,
    against,
    summed,
)
from holdfast.callbacks.guard.signals import SIGNALS, Values
from holdfast.callbacks.serving import CONTROL
from holdfast.callbacks.settings import GuardConfig, Tuned
from holdfast.datamodules import UNLABELLED, ImageSet, StreamLoader
from holdfast.datamodules.bootstrap import ORDERS, bootstrapped
from holdfast.tta import entry
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.calibration import fit_tail
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import Choice, closest, read_arguments, resolve
from holdfast.tta.errors import InputError
from holdfast.tta.methods import HYPERPARAMETERS, METHODS, Prediction, create_method
from holdfast.tta.methods.scaling import scaled
from holdfast.tta.options import option
from holdfast.tta.step import Candidate
from holdfast.tta.tasks import Scorer, Task

#: Points of the task's figure that the adapted model may lie below the control in the second half
#: of a healthy stream.
_TOLERANCE = 3.0
#: Streams of which a tail can be told at all.
_FEWEST = 6
#: Part of the streams that is drawn where each pixel has an answer.
_OF_PIXELS = 3


@dataclass
class NoCalibrationConfig:
    """Leave the guard's numbers at their defaults."""


@dataclass
class CalibrationConfig:
    """Streams of validation images that show how far signals are to be believed."""

    methods: list[str] = option(
        ["tent", "dsbr"], "methods that adapt, in turn, with their default options"
    )
    streams: int = option(
        105,
        "streams, of each order in turn, under corruptions of any strength; of masks, which take "
        "longer, a third as many",
    )
    batches: int = option(7, "batches of a stream")
    batch_size: int | None = option(None, "images a batch; null: 64, of masks 8")

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
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"calibrate.{name} must be at least {least}")


@dataclass
class QuickCalibrationConfig(CalibrationConfig):
    """The same in half a minute: fewer streams, and shorter ones."""

    streams: int = option(
        28,
        "streams, of each order in turn, under corruptions of any strength; of masks, which take "
        "longer, a third as many",
    )
    batches: int = option(6, "batches of a stream")


CALIBRATIONS: dict[str, type] = {
    "on": CalibrationConfig,
    "quick": QuickCalibrationConfig,
    "off": NoCalibrationConfig,
    "only": CalibrationConfig,
}


class WatchedStream(NamedTuple):
    """What a stream showed.

    Attributes:
        order: of arrival, by name.
        trace: the signals' numbers, look by look.
        healthy: whether the adapted model was about as good as the control in the second half.
    """

    order: str
    trace: list[Values]
    healthy: bool


def calibrate(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    config: CalibrationConfig,
    *,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``SourceCheckpoint.calibration`` keeps.

    Args:
        checkpoint: the source.
        images: its validation images.
        config: how many streams, how long, and who adapts.
        seed: of the streams.
        trainer: arguments of lightning.Trainer; only the accelerator, the precision and the
            progress bar's are used.

    Returns:
        Plain numbers and strings: ``tails`` of the signals' levels and limits (none where too few
        streams were healthy), and how they came about.

    Raises:
        InputError: so few labelled images that a batch would repeat them, or images of a single
            class.
    """
    known, size = int((images.target.kinds != UNLABELLED).sum()), batch_size(checkpoint, config)
    if known < size:
        raise InputError(
            f"the {known} labelled validation images are fewer than a batch of calibration, so its "
            f"streams would repeat them: label {size} or more, take smaller batches, "
            "calibrate.batch_size=N, or calibrate=off"
        )
    streams = list(watched_streams(checkpoint, images, config, seed=seed, trainer=trainer))
    healthy = [stream.trace for stream in streams if stream.healthy and stream.trace]
    return {
        "streams": len(streams),
        "healthy": len(healthy),
        "batches": config.batches,
        "batch_size": size,
        "methods": list(config.methods),
        "tails": tails(healthy, checkpoint.meaning) if len(healthy) >= _FEWEST else {},
    }


def watched_streams(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    config: CalibrationConfig,
    *,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
) -> Iterator[WatchedStream]:
    """What each stream shows; methods take turns, a stream of each order at a time.

    Arguments are those of ``calibrate``.
    """
    methods = [_with_options(name) for name in config.methods]
    given = trainer or {}
    chosen = {key: value for key, value in given.items() if key in ("accelerator", "precision")}
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "devices": 1,
    }
    arguments = {**entry.trainer_arguments(chosen, max_epochs=1), **quiet}
    size = batch_size(checkpoint, config)
    length = config.batches * size
    count = stream_count(checkpoint, config)
    drawn = bootstrapped(images, count, length, size, seed)
    hidden = given.get("enable_progress_bar") is False
    bar = tqdm(drawn, "calibration", count, unit="stream", disable=hidden or None)
    for number, (order, stream) in enumerate(bar):
        method = methods[number // len(ORDERS) % len(methods)]
        observer = _Observer(checkpoint, config.batches)
        module = _module(checkpoint, method, size)
        loader = StreamLoader(images, stream, size)
        entry.create_trainer({**arguments, "callbacks": [observer]}).fit(module, loader)
        yield observer.watched(order)


def batch_size(checkpoint: SourceCheckpoint, config: CalibrationConfig) -> int:
    """Images a batch of calibration: as chosen, else a look's worth."""
    return config.batch_size or checkpoint.meaning.look


def stream_count(checkpoint: SourceCheckpoint, config: CalibrationConfig) -> int:
    """Streams of a calibration."""
    if not checkpoint.meaning.dense:
        return config.streams
    return max(config.streams // _OF_PIXELS, _FEWEST)


def tails(
    traces: Sequence[Sequence[Values]], task: Task | None = None
) -> dict[str, dict[str, float]]:
    """The tail of each calibrated signal's level, and of the sum beyond it, over healthy streams.

    Args:
        traces: the signals' numbers of each stream, look by look.
        task: what predictions are of; None: images with one label.
    """
    found: dict[str, dict[str, float]] = {}
    levels = levels_of(GuardConfig(), None, task)
    names = [signal.name for signal in SIGNALS if signal.calibrated]
    # Drift first: whether predictions move decides what R says.
    for name in sorted(names, key=lambda name: name != "drift"):
        largest = [_largest(trace, name, levels) for trace in traces]
        found[f"{name}.level"] = fit_tail([max(value, 0.0) for value in largest])
        levels = levels_of(GuardConfig(), {"batches": 1, "tails": found}, task)
    alarming = [name for name in names if name in levels.limits]
    sums: dict[str, list[float]] = {name: [] for name in alarming}
    for trace in traces:
        memory, most = Memory(), dict.fromkeys(alarming, 0.0)
        for values in trace:
            memory = summed(values, levels, memory, 1)
            most = {name: max(most[name], memory.sums.get(name, 0.0)) for name in alarming}
        for name, value in most.items():
            sums[name].append(value)
    return {**found, **{f"{name}.limit": fit_tail(values) for name, values in sums.items()}}


def _largest(trace: Sequence[Values], name: str, levels: Levels) -> float:
    """The most that a signal speaks against the model in a stream; 0 where it is never known."""
    peak, known = 1.0, []
    for values in trace:
        peak = max(peak, values.get("R") or 1.0)
        known.append(against(values, levels, peak)[name])
    return max((value for value in known if value is not None), default=0.0)


@dataclass
class _Adaptation:
    method: Any = option("tent", "adaptation method")


def _with_options(name: str) -> Choice[Any]:
    """A method with its default options."""
    groups = {"method": HYPERPARAMETERS}
    choice: Choice[Any] = resolve(
        _Adaptation, groups, read_arguments([f"method={name}"], groups)
    ).method
    return choice


def _module(checkpoint: SourceCheckpoint, choice: Choice[Any], batch_size: int) -> AdaptationModule:
    """The method as ``adapt.py`` runs it under the guard."""
    facts = {name: getattr(checkpoint, name) for name in METHODS[choice.kind].uses}
    kind, size = checkpoint.architecture, checkpoint.size
    options = asdict(scaled(choice.options, model=kind, size=size, batch_size=batch_size))
    method = create_method(
        choice.kind,
        checkpoint.build(),
        num_classes=len(checkpoint.class_names),
        task=checkpoint.meaning,
        **options,
        **facts,
    )
    candidates = Candidates(method, checkpoint.layer_moments)
    return AdaptationModule(method, batch_size, candidates=candidates)


class _Observer(CollapseGuard):
    """Measures as the guard does, on every batch, and neither chooses nor judges.

    Args:
        checkpoint: the source.
        batches: of the stream.
    """

    def __init__(self, checkpoint: SourceCheckpoint, batches: int) -> None:
        reference = Reference(*checkpoint.features)
        config = GuardConfig(tuned=Tuned(longest=1))
        super().__init__(checkpoint.class_names, config, reference)
        self.trace: list[Values] = []
        self._meaning, self._late = checkpoint.meaning, batches // 2
        #: Of the second half.
        self._half = {"adapted": self._meaning.scorer(), "control": self._meaning.scorer()}

    def watched(self, order: str) -> WatchedStream:
        """What the stream showed."""
        adapted, control = (self._score(self._half[name]) for name in ("adapted", "control"))
        healthy = adapted >= control - _TOLERANCE / 100  # which an undefined figure never is
        return WatchedStream(order, self.trace, healthy)

    def _score(self, scorer: Scorer) -> float:
        return scorer.scores().get(self._meaning.watch, math.nan) / 100

    def _ask(self, module: Any, batch: Any, *, whole: bool) -> dict[Candidate, Prediction]:
        """Nothing: the method works under the statistics that it begins with."""
        return {}

    def _looked(self, saw: Any, adapted: Prediction, numbers: Asked) -> Heard:
        saw.skipped = False
        read = super()._looked(saw, adapted, numbers)
        self.trace.append(saw.values)
        if len(self.trace) > self._late:
            truth = saw.said.batch[self._meaning.target].cpu()
            self._half["adapted"].add(adapted.served.detach().cpu(), truth)
            self._half["control"].add(saw.said.of(CONTROL).served.cpu(), truth)
        return read

    def _judge(self, saw: Any) -> Decision:
        return Decision(Verdict("OK", "ok", "Nothing is judged while numbers are had."), Memory())
