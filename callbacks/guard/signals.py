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
from typing import Any, NamedTuple

from numpy.typing import NDArray

from holdfast.tta.marginal import marginal_drift, vanished_classes

#: R that lacks this much counts whatever else speaks for the model: where Tent collapsed on real
#: images R fell below .7 (by earlier measurements), and where an update helped it rarely did.
_DEEP = 0.3
#: Values of the signals at a look, by name; None where one is not defined (yet).
Values = Mapping[str, float | None]


class Compared(NamedTuple):
    """The adapted model beside its control, on the same images; pairs are of both, in this order.

    Attributes:
        separation: J of the features, both grouped by the control's labels; 0 where unknown.
        divergence: from the source's classes under own labels; 0 where unknown.
        answers: (C,) predictions by class of the adapted model.
        expected: (C,) those of the control.
        moved: how far the one is from the other, where a task has a measure of its own.
    """

    separation: Sequence[float]
    divergence: Sequence[float]
    answers: NDArray[Any]
    expected: NDArray[Any]
    moved: float | None = None


class History(NamedTuple):
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
        measure: the number, from both models; None, or not finite, where it is not defined.
        level: of what speaks against the model, above which it adds to the sum; infinite: the
            number is shown only.
        limit: of the sum, above which an alarm is raised; None: none is.
        message: of the alarm, with the signals' values by name.
        judged: how much speaks against the model, where that is not the number itself.
        calibrated: whether level and limit come from the checkpoint's own streams.
    """

    name: str
    measure: Callable[[Compared], float | None]
    level: float = math.inf
    limit: float | None = None
    message: str = ""
    judged: Callable[[History], float | None] | None = None
    calibrated: bool = False

    def against(self, history: History) -> float | None:
        """How much speaks against the model, larger where it is worse; None: not known."""
        return self.judged(history) if self.judged else history.values.get(self.name)


def _ratio(both: Compared) -> float | None:
    adapted, control = both.separation
    return adapted / control if control > 0 else None


def _gain(both: Compared) -> float | None:
    adapted, control = both.divergence
    return math.log(control / adapted) if adapted > 0 and control > 0 else None


def _drift(both: Compared) -> float | None:
    if not (both.answers.any() and both.expected.any()):
        return None
    if both.moved is not None:
        return both.moved
    return float(marginal_drift(both.answers, both.expected))


def _fallen(history: History) -> float | None:
    """What R lacks to 1, or to its best while predictions drift: over-balancing first tightens the
    clusters, and when R falls below 1 it is late. A shallow fall does not count where what was
    learned brings classes nearer to the source's, nor where predictions hardly move: clusters that
    loosen while every image keeps its class harm nobody.
    """
    ratio, gain = history.values.get("R"), history.values.get("gain")
    if ratio is None:
        return None
    lacking = (history.peak if history.moved else 1.0) - ratio
    excused = history.moved is False or (gain is not None and gain > 0)
    return min(lacking, 0.0) if excused and lacking < _DEEP else lacking


def _unearned(history: History) -> float | None:
    """How far predictions moved while neither separation nor divergence speaks for what was
    learned; below 0 where one does. On recorded streams both together told harm from gain where
    drift alone did not. Where hardly any image is of a second class there is no separation to speak
    for it: then divergence has to.
    """
    ratio, drift, gain = (history.values.get(name) for name in ("R", "drift", "gain"))
    if drift is None or gain is None:
        return None
    earned = gain > 0 or (ratio is not None and ratio > 1)
    return -drift if earned else drift


#: The signals, gravest first: the one place where one is added. Levels and limits are those without
#: a calibration.
SIGNALS: tuple[Signal, ...] = (
    Signal(
        "non_finite",
        lambda both: 0.0,  # unless a glance at the batch found otherwise
        level=0.5,
        limit=0.0,
        message="The adapted model returned values that are not finite.",
    ),
    Signal(
        "vanished",
        lambda both: float(vanished_classes(both.answers, both.expected).sum()),
        level=0.5,
        limit=0.0,
        message="The adapted model no longer predicts {vanished:.0f} of the classes; the control "
        "does.",
    ),
    Signal(
        "R",
        _ratio,
        level=0.03,
        limit=0.1,
        message="Class separation is {R:.2f} of the control's, too little for too long.",
        judged=_fallen,
        calibrated=True,
    ),
    Signal(
        "drift",
        _drift,
        level=0.04,
        message="The share of a class moved by {drift:.0%} of what the control finds.",
        calibrated=True,
    ),
    Signal(
        "gain",
        _gain,
        level=0.04,
        limit=0.06,
        message="Predictions moved by {drift:.0%}, and nothing speaks for what was learned.",
        judged=_unearned,
        calibrated=True,
    ),
    Signal("J", lambda both: both.separation[0] or None),
)
#: By name.
BY_NAME: Mapping[str, Signal] = {signal.name: signal for signal in SIGNALS}


def measured(both: Compared) -> dict[str, float | None]:
    """Every signal's number, by name; None where it is not defined."""
    numbers = {signal.name: signal.measure(both) for signal in SIGNALS}
    return {
        name: number if number is not None and math.isfinite(number) else None
        for name, number in numbers.items()
    }
