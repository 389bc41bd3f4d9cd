"""Settings of the guard."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from callbacks.alerts import AlertConfig
from callbacks.corrections import CORRECTIONS, LADDER
from callbacks.verdict import Thresholds
from tta.calibration import calibrated
from tta.config import closest
from tta.errors import InputError
from tta.options import option


@dataclass
class NoGuardConfig:
    """Adapt unwatched, as published methods do."""


@dataclass
class GuardConfig:
    """Watch the adapted model, choose what serves, and correct before a collapse."""

    patience: int = option(
        2, "the guard looks at every batch at first, and again after 1/patience of the time of calm"
    )
    longest: int = option(20, "most batches between two looks")
    hysteresis: float = option(
        0.05, "evidence by which other statistics must be better before they are chosen"
    )
    decay: float = option(
        0.7,
        "memory of the running class moments and marginals, per check; small batches are "
        "remembered for longer",
    )
    min_count: float = option(8.0, "effective samples that a class needs before its moments count")
    false_alarm: float = option(
        0.01,
        "level of the test of flips, and most chance of a false alarm of R or drift in 100 batches "
        "where thresholds are null "
        "and calibrated",
    )
    watch_ratio: float | None = option(
        None,
        "watch closely when R is below this; null: as calibrated by train.py, or 0.97; if set, no "
        "calibration counts",
    )
    alarm_shortfall: float | None = option(
        None,
        "alarm when R fell short of watch_ratio by this much, summed over batches; null: as "
        "calibrated, or 0.1",
    )
    watch_drift: float | None = option(
        None,
        "watch closely when the marginal drift is above this; null: as calibrated, or 0.04; if "
        "set, no calibration counts",
    )
    alarm_excess: float | None = option(
        None,
        "alarm when drift exceeded watch_drift by this much, summed over batches, where statistics "
        "are chosen; null: as "
        "calibrated, or 0.06",
    )
    alarm_lead: float | None = option(
        None,
        "alarm, and change the statistics, when the evidence for others led that for the published "
        "ones by this much, summed "
        "over looks; null: 0.05",
    )
    alarm_doubt: float | None = option(
        None,
        "alarm, and let all statistics serve together while it lasts, when doubt in the published "
        "ones came to this much, "
        "summed over looks; null: 0.1",
    )
    ladder: list[str] = option(
        list(LADDER),
        "correction of the first, second, ... alarm within the window; the last repeats",
    )
    rest: int = option(8, "batches without updates after an alarm")
    window: int = option(1000, "batches over which alarms are counted")
    alert: AlertConfig = option(AlertConfig(), "who is told of an alarm")

    def __post_init__(self) -> None:
        for name in ("patience", "longest", "window"):
            if getattr(self, name) < 1:
                raise InputError(f"guard.{name} must be at least 1")
        if not 0 <= self.decay < 1:
            raise InputError(f"guard.decay={self.decay} is outside [0, 1)")
        for name in (
            *(field.name for field in fields(Thresholds) if field.name != "alpha"),
            "hysteresis",
        ):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"guard.{name} must not be negative")
        if not 0 < self.false_alarm <= 0.5:
            raise InputError(f"guard.false_alarm={self.false_alarm} is outside (0, 0.5]")
        if self.rest < 0 or self.min_count < 2:
            raise InputError("guard.rest must be at least 0, and guard.min_count at least 2")
        if not self.ladder:
            raise InputError(
                "guard.ladder is empty: name at least one correction, guard.ladder=[reset]"
            )
        if self.rest == 0 and "pause" in self.ladder:
            raise InputError(
                "guard.rest=0 leaves guard.ladder's pause without effect: let it rest, or name "
                "another correction"
            )
        for rung in self.ladder:
            if rung not in CORRECTIONS:
                raise InputError(
                    f"guard.ladder has an unknown correction {rung!r}: {closest(rung, CORRECTIONS)}"
                )

    def thresholds(self, calibration: Mapping[str, Any] | None = None) -> Thresholds:
        """Where trust ends: as set, else as calibrated, else by default.

        Args:
            calibration: of the source checkpoint. Its levels belong together, sums beyond a watch
                to that watch; so where a level of the watch is set, the others are the defaults.
        """
        given = {
            field.name: getattr(self, field.name)
            for field in fields(Thresholds)
            if field.name != "alpha"
        }
        if any(value is not None for name, value in given.items() if name.startswith("watch")):
            calibration = None
        given["alpha"] = self.false_alarm
        found = {
            name: calibrated(calibration, name, self.false_alarm) if v is None else v
            for name, v in given.items()
        }
        return Thresholds(**{name: value for name, value in found.items() if value is not None})
