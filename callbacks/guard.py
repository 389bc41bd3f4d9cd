"""The guard: watches an adapting model against its un-updated twin, and takes it back before it collapses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.verdict import Memory, State, Statistics, Thresholds, Verdict, decide
from tta.errors import InputError
from tta.marginal import marginal_drift, predicted_counts, vanished_classes
from tta.methods import Prediction
from tta.options import option
from tta.separation import ClassMoments, class_moments, merge, no_moments, separation_of


@dataclass
class NoGuardConfig:
    """Adapt unwatched, as published methods do."""


@dataclass
class GuardConfig:
    """Watch the adapted model and reset it before it collapses."""

    every: int = option(4, "the control runs every so many batches; on every batch while the verdict is WATCH")
    decay: float = option(0.7, "memory of the running class moments and marginals, per check")
    min_count: float = option(8.0, "effective samples that a class needs before its moments count")
    watch_ratio: float = option(0.85, "watch every batch when R is below this")
    alarm_shortfall: float = option(0.3, "alarm when R fell short of watch_ratio by this much, summed over checks")
    watch_drift: float = option(0.2, "watch every batch when the marginal drift is above this")
    rest: int = option(8, "batches without updates after a reset")
    max_resets: int = option(3, "freeze on the control at this many resets within the window")
    window: int = option(1000, "batches over which resets are counted")

    def __post_init__(self) -> None:
        for name in ("every", "max_resets", "window"):
            if getattr(self, name) < 1:
                raise InputError(f"guard.{name} must be at least 1")
        if not 0 <= self.decay < 1:
            raise InputError(f"guard.decay={self.decay} is outside [0, 1)")
        if min(self.watch_ratio, self.alarm_shortfall, self.watch_drift) < 0:
            raise InputError("guard.watch_ratio, guard.alarm_shortfall and guard.watch_drift must not be negative")
        if self.rest < 0 or self.min_count < 2:
            raise InputError("guard.rest must be at least 0, and guard.min_count at least 2")

    @property
    def thresholds(self) -> Thresholds:
        """The part of the settings on which verdicts depend."""
        return Thresholds(self.watch_ratio, self.alarm_shortfall, self.watch_drift)


@runtime_checkable
class Guardable(Protocol):
    """What the guard asks of a LightningModule, besides ``logits`` and ``features`` in its step's outputs."""

    def control(self, batch: Any) -> Prediction:
        """What the un-updated twin says of the batch."""

    def reset(self) -> None:
        """Restore the source's weights, with optimiser moments and running state."""

    def pause(self, paused: bool = True) -> None:
        """Stop updating, or go on."""


class CollapseGuard(Callback):
    """Compare the adapted model with its control, judge, and correct; place it before callbacks that write predictions.

    On ALARM the module is reset, rests for a while, and the batch leaves with the control's logits; at the third reset
    within the window updates stop for good. Batches that the module reports as ``skipped`` leave with the control's
    logits too. What was found is left in the step's outputs: ``verdict``, ``served_by``, ``statistics`` (J, R, drift)
    and ``events``.

    Args:
        class_names: names of the classes.
        config: settings.

    Example:
        ``Trainer(max_epochs=1, callbacks=[CollapseGuard(["benign", "malignant"])])`` for any LightningModule that is
        ``Guardable`` and whose training step returns a dictionary with ``logits`` and ``features``.
    """

    def __init__(self, class_names: Sequence[str], config: GuardConfig | None = None) -> None:
        self.class_names = tuple(class_names)
        self.config = config or GuardConfig()
        self.batch = 0
        self.alarms = 0
        self.resets: list[int] = []
        self.state: State = "OK"
        self.memory = Memory()
        self.resting = 0
        self._adapted: ClassMoments | None = None
        self._control: ClassMoments | None = None
        self._counts: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that cannot be guarded, before any image is seen."""
        if not isinstance(pl_module, Guardable):
            raise InputError(
                f"CollapseGuard needs control(batch), reset() and pause(paused) of {type(pl_module).__name__}: "
                "define them, or use AdaptationModule"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if due, judge, correct, and say what serves the batch."""
        if not isinstance(outputs, dict) or not {"logits", "features"} <= outputs.keys():
            raise InputError("CollapseGuard needs a training step that returns a dictionary with 'logits' and 'features'")
        assert isinstance(pl_module, Guardable)
        outputs["events"] = events = []
        prediction = Prediction(outputs["logits"], outputs["features"])
        healthy = bool(torch.isfinite(prediction.logits).all())
        skipped = outputs.get("skipped")
        due = self.batch % self.config.every == 0 or self.state == "WATCH"
        control = None
        if self.memory.frozen or self.resting:
            control = prediction  # nothing has been updated since the reset, so they are one and the same
        elif due or skipped or not healthy:
            control = pl_module.control(batch)
        statistics = Statistics(non_finite=not healthy)
        if healthy and control is not None and due and not skipped:
            statistics = self._measure(prediction, control)
        decision = decide(statistics, self.config.thresholds, self.memory)
        verdict = decision.verdict
        measured = statistics.ratio is not None or verdict.state in ("ALARM", "FROZEN")
        if not measured:  # nothing new is known: the last verdict stands
            verdict = Verdict("OK" if self.state == "ALARM" else self.state, verdict.reason, verdict.message)
        self.memory = decision.memory
        if skipped:
            events.append(self._event("skipped", skipped, f"No update: {skipped.replace('_', ' ')}.", None, batch))
        if verdict.state != self.state:
            events.append(self._event("verdict", verdict.reason, verdict.message, statistics, state=verdict.state))
        if control is not None and (skipped or verdict.state in ("ALARM", "FROZEN")):
            outputs["logits"], outputs["features"] = control
            if outputs.get("served_by") != "source":
                outputs["served_by"] = "control"
        self.resting = max(self.resting - 1, 0)
        if verdict.state == "ALARM":
            events.append(self._correct(pl_module, verdict, statistics))
        elif self.resting == 0 and not self.memory.frozen:
            pl_module.pause(False)
        outputs.setdefault("served_by", "adapted")
        outputs["verdict"] = self.state = verdict.state
        outputs["statistics"] = {"J": statistics.separation, "R": statistics.ratio, "drift": statistics.drift}
        self.batch += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, and nothing of the settings."""
        return {
            "batch": self.batch,
            "alarms": self.alarms,
            "resets": list(self.resets),
            "state": self.state,
            "resting": self.resting,
            "memory": asdict(self.memory),
            "adapted": self._adapted and list(self._adapted),
            "control": self._control and list(self._control),
            "counts": self._counts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.batch, self.alarms, self.state = state_dict["batch"], state_dict["alarms"], state_dict["state"]
        self.resets, self.resting = list(state_dict["resets"]), state_dict["resting"]
        self.memory = Memory(**state_dict["memory"])
        self._adapted = state_dict["adapted"] and ClassMoments(*state_dict["adapted"])
        self._control = state_dict["control"] and ClassMoments(*state_dict["control"])
        self._counts = state_dict["counts"]

    def _measure(self, adapted: Prediction, control: Prediction) -> Statistics:
        """Take a batch into the running moments and marginals, and compute the statistics of both."""
        classes, decay = len(self.class_names), self.config.decay
        labels = control.logits.argmax(1)
        if self._adapted is None or self._control is None or self._counts is None:
            start = no_moments(classes, control.features.shape[1], control.features.device)
            self._adapted = self._control = start
            self._counts = torch.zeros(2, classes, device=control.logits.device)
        self._adapted = merge(self._adapted, class_moments(adapted.features, labels, classes), decay)
        self._control = merge(self._control, class_moments(control.features, labels, classes), decay)
        counts = [predicted_counts(p.logits, classes) for p in (adapted, control)]
        self._counts = self._counts * decay + torch.stack(counts)
        minimum = self.config.min_count
        both = [separation_of(self._adapted, minimum), separation_of(self._control, minimum)]
        # One read-back to the host for all statistics.
        values = torch.stack([*both, marginal_drift(*self._counts), *vanished_classes(*self._counts).float()]).tolist()
        own, twin, drift, *vanished = values
        return Statistics(
            separation=own if twin > 0 else None,
            ratio=own / twin if twin > 0 else None,
            drift=drift,
            vanished=tuple(name for name, gone in zip(self.class_names, vanished, strict=True) if gone),
        )

    def _correct(self, module: Guardable, verdict: Verdict, statistics: Statistics) -> dict[str, Any]:
        """Full reset and rest; freeze for good at the last reset that the window allows."""
        self.alarms += 1
        module.reset()
        self._adapted = self._control
        if self._counts is not None:
            self._counts = self._counts[1].expand(2, -1).clone()
        recent = [batch for batch in self.resets if batch > self.batch - self.config.window]
        self.resets.append(self.batch)
        frozen = len(recent) + 1 >= self.config.max_resets
        self.memory = Memory(frozen=frozen)
        self.resting = self.config.rest
        if frozen or self.resting:
            module.pause(True)
        correction, message = "reset", "Restored the source's weights, moments and running state."
        if frozen:
            correction = "freeze"
            message = f"Reset {len(recent) + 1} times in {self.config.window} batches: updates stop, the control serves."
        return self._event("correction", verdict.reason, message, statistics, correction=correction)

    def _event(
        self, kind: str, reason: str, message: str, statistics: Statistics | None, batch: Any = None, **more: Any
    ) -> dict[str, Any]:
        event = {"batch": self.batch, "event": kind, "reason": reason, "message": message, **more}
        if statistics is not None:
            event["evidence"] = asdict(statistics)
        if isinstance(batch, Mapping) and reason == "non_finite_image":
            broken = ~torch.isfinite(batch["image"]).flatten(1).all(1)
            event["ids"] = [name for name, bad in zip(batch["id"], broken.tolist(), strict=True) if bad]
        return event
