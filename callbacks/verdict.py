"""Is the adapted model still trustworthy? A pure function of statistics, thresholds and memory."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

State = Literal["OK", "WATCH", "ALARM", "FROZEN"]


@dataclass(frozen=True)
class Statistics:
    """What was measured on a batch; None where it is not defined (yet).

    Attributes:
        separation: J of the adapted model.
        ratio: R = J(adapted) / J(control), both grouped by the control's labels on the same images.
        drift: total variation between the predicted marginals of adapted and control.
        vanished: names of the classes that the control predicts and the adapted model no longer does.
        non_finite: the adapted model returned a NaN or an infinity.
    """

    separation: float | None = None
    ratio: float | None = None
    drift: float | None = None
    vanished: tuple[str, ...] = ()
    non_finite: bool = False


@dataclass(frozen=True)
class Thresholds:
    """Where trust ends; guard.md's measurements on real images gave the defaults.

    Attributes:
        alarm_ratio: R below this raises the alarm, when it is so on two checks in a row.
        watch_ratio: R below this calls for a check on every batch.
        collapse_ratio: R below this raises the alarm at once.
        watch_drift: marginal drift above this calls for a check on every batch.
    """

    alarm_ratio: float = 0.7
    watch_ratio: float = 0.85
    collapse_ratio: float = 0.5
    watch_drift: float = 0.2


@dataclass(frozen=True)
class Memory:
    """What a verdict needs to know of the past.

    Attributes:
        low_checks: checks in a row, up to the last one, with R below ``alarm_ratio``.
        frozen: updates were stopped for good.
    """

    low_checks: int = 0
    frozen: bool = False


class Verdict(NamedTuple):
    """A state, the reason in a word, and the sentence that tells a person."""

    state: State
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """A verdict and the memory that the next one needs."""

    verdict: Verdict
    memory: Memory = field(default_factory=Memory)


def decide(statistics: Statistics, thresholds: Thresholds, memory: Memory) -> Decision:
    """Judge one batch.

    Args:
        statistics: what was measured; an undefined ratio leaves the count of low checks as it was.
        thresholds: where trust ends.
        memory: of the decision before.
    """
    ratio, drift = statistics.ratio, statistics.drift
    low = memory.low_checks
    if ratio is not None:
        low = low + 1 if ratio < thresholds.alarm_ratio else 0
    after = Memory(low_checks=low, frozen=memory.frozen)
    if memory.frozen:
        return Decision(Verdict("FROZEN", "frozen", "Updates were stopped for good; the control serves."), after)
    if statistics.non_finite:
        verdict = Verdict("ALARM", "non_finite", "The adapted model returned values that are not finite.")
    elif statistics.vanished:
        names = ", ".join(statistics.vanished)
        verdict = Verdict("ALARM", "vanished_class", f"The adapted model no longer predicts {names}; the control does.")
    elif ratio is not None and ratio < thresholds.collapse_ratio:
        verdict = Verdict("ALARM", "separation", f"Class separation fell to {ratio:.2f} of the control's.")
    elif low >= 2:
        verdict = Verdict("ALARM", "separation", f"Class separation stayed below {thresholds.alarm_ratio} of the control's.")
    elif ratio is not None and ratio < thresholds.watch_ratio:
        verdict = Verdict("WATCH", "separation", f"Class separation is {ratio:.2f} of the control's.")
    elif drift is not None and drift > thresholds.watch_drift:
        verdict = Verdict("WATCH", "drift", f"Predictions moved by {drift:.0%} against the control's.")
    else:
        verdict = Verdict("OK", "ok", "The adapted model separates the classes as the control does.")
    return Decision(verdict, after)
