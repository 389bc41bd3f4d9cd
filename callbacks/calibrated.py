"""What a source checkpoint knows of the guard's numbers: levels and limits of the signals."""

import math
from collections.abc import Mapping
from typing import Any

from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.guard.signals import SIGNALS, Signal
from holdfast.callbacks.settings import GuardConfig
from holdfast.tta.calibration import STREAM_BATCHES, WATCH_CHANCE, tail_value
from holdfast.tta.tasks import Task


def levels_of(
    config: GuardConfig, calibration: Mapping[str, Any] | None, task: Task | None = None
) -> Levels:
    """Where trust ends: as set, else as calibrated, else by default.

    A limit is of the sum beyond a level, so where a level is set, the limit's calibration does not
    count.

    Args:
        config: the guard's settings.
        calibration: of the source checkpoint.
        task: what predictions are of, which may measure drift in its own way; None: images with one
            label.
    """
    levels, limits = {}, {}
    for signal in SIGNALS:
        if math.isinf(signal.level):
            continue
        name, known = signal.name, calibration if signal.calibrated else None
        usual, most = _defaults(signal, task)
        level = calibrated(known, f"{name}.level", usual, config)
        levels[name] = config.levels.get(name, level)
        if most is not None:
            known = None if name in config.levels else known
            limits[name] = calibrated(known, f"{name}.limit", most, config)
        if name in config.limits:
            limits[name] = config.limits[name]
    return Levels(levels, limits)


def _defaults(signal: Signal, task: Task | None) -> tuple[float, float | None]:
    """Level and limit of a signal without a calibration."""
    if signal.name == "drift" and task is not None and task.drift_level is not None:
        return task.drift_level, task.drift_limit
    return signal.level, signal.limit


def calibrated(
    calibration: Mapping[str, Any] | None, name: str, default: float, config: GuardConfig
) -> float:
    """A level or limit at the chosen rate of false alarms, no stricter than its default.

    Validation images are easier than any target: R may hardly leave 1 on them, and numbers so
    strict would take every target for harm. Nor may a single odd stream excuse every other, so none
    is more than ``tuned.loosest`` times the default.
    """
    if calibration is None or name not in calibration["tails"]:
        return default
    part = min(calibration["batches"] / STREAM_BATCHES, 1)
    chance = WATCH_CHANCE if name.endswith(".level") else config.false_alarm * part
    value = tail_value(calibration["tails"][name], chance)
    return min(max(value, default), config.tuned.loosest * default)
