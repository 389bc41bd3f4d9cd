"""What the guard watches for: each signal in one place, with where trust in it ends.

A signal measures one number at each look, from which follows how much speaks against the adapted
model. What of that lies above the signal's *level* is summed up over batches, and what lies below
is taken off (a cumulative sum: Page, 1954); a sum above its *limit* raises an alarm. So a deep fall
is caught at once, a shallow one when it lasts, and a single noisy look is forgiven. The trace's
columns, the options ``guard.levels`` and ``guard.limits``, the calibration, the replay and the
report are made from ``SIGNALS``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference, Seen, divergence
from holdfast.tta.marginal import marginal_drift, vanished_classes
from holdfast.tta.separation import ClassMoments, separation_of

#: R that lacks this much counts whatever else speaks for the model: where Tent collapsed on real
#: images R fell below .7 (by earlier measurements), and where an update helped it rarely did.
_DEEP = 0.3
#: Values of the signals at a look, by name; None where one is not defined (yet).
Values = Mapping[str, float | None]


class Compared(NamedTuple):
    """The adapted model beside its control, on the same images.

    Attributes:
        adapted: moments of its features, grouped by the control's labels.
        control: moments of the control's, grouped likewise.
        counts: (2, C) predictions by class, the adapted model's and the control's.
        own: what each sees of the classes under its own labels, adapted and control; None without a
            source to hold it against.
        finite: whether all values of the adapted model are.
        source: the source's classes, where they are known.
        min_count: images that a class needs before its moments count.
        prior: images by which a class is drawn to the source's (``divergence``).
    """

    adapted: ClassMoments
    control: ClassMoments
    counts: Tensor
    own: tuple[Seen, Seen] | None
    finite: Tensor
    source: Reference | None
    min_count: float
    prior: float


class Course(NamedTuple):
    """A look in the course of things.

    Attributes:
        values: of the signals.
        peak: the largest R so far under the same statistics, at least 1.
        moved: whether drift is above its level (True), below half of it (False), or between.
    """

    values: Values
    peak: float = 1.0
    moved: bool | None = None


class Signal(NamedTuple):
    """Something that may speak against the adapted model.

    Attributes:
        name: column of the trace, and key of ``guard.levels`` and ``guard.limits``.
        measure: the number, from both models; NaN where it is not defined.
        level: of what speaks against the model, above which it adds to the sum; infinite: the
            number is shown only.
        limit: of the sum, above which an alarm is raised; None: none is.
        message: of the alarm, with the signals' values by name.
        against: how much speaks against the model, larger where it is worse; None: not known.
        calibrated: whether level and limit come from the checkpoint's own streams.
    """

    name: str
    measure: Callable[[Compared], Tensor]
    level: float
    limit: float | None
    message: str
    against: Callable[[Course], float | None]
    calibrated: bool = False


def _separation(both: Compared) -> Tensor:
    return _or_nan(separation_of(both.adapted, both.min_count))


def _ratio(both: Compared) -> Tensor:
    control = separation_of(both.control, both.min_count)
    return separation_of(both.adapted, both.min_count) / _or_nan(control)


def _gain(both: Compared) -> Tensor:
    if both.own is None or both.source is None:
        return both.counts.new_tensor(math.nan)
    adapted, control = (divergence(seen, both.source, both.prior) for seen in both.own)
    return (_or_nan(control) / _or_nan(adapted)).log()


def _or_nan(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.nan)


def _fallen(course: Course) -> float | None:
    """What R lacks to 1, or to its best while predictions drift: over-balancing first tightens the
    clusters, and when R falls below 1 it is late. A shallow fall does not count where what was
    learned brings classes nearer to the source's, nor where predictions hardly move: clusters that
    loosen while every image keeps its class harm nobody.
    """
    ratio, gain = course.values.get("R"), course.values.get("gain")
    if ratio is None:
        return None
    lacking = (course.peak if course.moved else 1.0) - ratio
    excused = course.moved is False or (gain is not None and gain > 0)
    return min(lacking, 0.0) if excused and lacking < _DEEP else lacking


def _unearned(course: Course) -> float | None:
    """How far predictions moved while neither separation nor divergence speaks for what was
    learned; below 0 where one does. On recorded streams both together told harm from gain where
    drift alone did not.
    """
    ratio, drift, gain = (course.values.get(name) for name in ("R", "drift", "gain"))
    if ratio is None or drift is None or gain is None:
        return None
    return -drift if ratio > 1 or gain > 0 else drift


def _value(name: str) -> Callable[[Course], float | None]:
    return lambda course: course.values.get(name)


def _nothing(course: Course) -> None:
    return None


#: The signals, gravest first: the one place where one is added. Levels and limits are those without
#: a calibration.
SIGNALS: tuple[Signal, ...] = (
    Signal(
        "non_finite",
        lambda both: 1.0 - both.finite,
        *(0.5, 0.0, "The adapted model returned values that are not finite."),
        _value("non_finite"),
    ),
    Signal(
        "vanished",
        lambda both: vanished_classes(*both.counts).float().sum(),
        *(
            0.5,
            0.0,
            "The adapted model no longer predicts {vanished:.0f} of the classes; the control does.",
        ),
        _value("vanished"),
    ),
    Signal(
        "R",
        _ratio,
        *(0.03, 0.1, "Class separation is {R:.2f} of the control's, too little for too long."),
        _fallen,
        calibrated=True,
    ),
    Signal(
        "drift",
        lambda both: marginal_drift(*both.counts),
        *(0.04, None, ""),
        _value("drift"),
        calibrated=True,
    ),
    Signal(
        "gain",
        _gain,
        *(0.04, 0.06, "Predictions moved by {drift:.0%}, and nothing speaks for what was learned."),
        _unearned,
        calibrated=True,
    ),
    Signal("J", _separation, math.inf, None, "", _nothing),
)
#: By name.
BY_NAME: Mapping[str, Signal] = {signal.name: signal for signal in SIGNALS}


def measured(both: Compared) -> Tensor:
    """The signals' numbers (S,), on the device; NaN where one is not defined."""
    return torch.stack([signal.measure(both).float() for signal in SIGNALS])


def named(numbers: Sequence[float]) -> dict[str, float | None]:
    """Numbers of ``measured``, read back to the host, by the signals' names; none of none."""
    return {
        signal.name: number if math.isfinite(number) else None
        for signal, number in zip(SIGNALS, numbers, strict=False)
    }
