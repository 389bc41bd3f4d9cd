"""Is the adapted model still trustworthy? A pure function of statistics, thresholds and memory."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

State = Literal["OK", "WATCH", "ALARM", "FROZEN"]

#: R below this falls short whether predictions have moved or not.
_DEEP = 0.5
#: Most vanished classes that a message names.
_NAMED = 3


@dataclass(frozen=True)
class Statistics:
    """What was measured on a batch; None where it is not defined (yet).

    Attributes:
        separation: J of the adapted model.
        ratio: R = J(adapted) / J(control), both grouped by the control's labels on the same images.
        drift: total variation between the predicted marginals of adapted and control.
        vanished: names of the classes that the control predicts and the adapted model hardly does
            (``tta.marginal``).
        non_finite: the adapted model returned a NaN or an infinity.
        lead: evidence by which other normalisation statistics lead those that the method was
            published with, less their handicap.
        doubt: evidence by which those fit the images badly while the source's own do not.
        lean: evidence that flips between adapted and control lean to the commoner class: logarithm
            of a bet's wealth.
        mirror: the same for flips away from it, as of over-balancing.
        disagreement: share of images on which adapted and control disagree.
        rank: effective rank of the adapted model's features over the control's; for the reader,
            nothing is judged by it.
        stands_for: batches that the check stands for: more than 1 where those before it were let
            pass while watching.
    """

    separation: float | None = None
    ratio: float | None = None
    drift: float | None = None
    vanished: tuple[str, ...] = ()
    non_finite: bool = False
    lead: float | None = None
    doubt: float | None = None
    lean: float | None = None
    mirror: float | None = None
    disagreement: float | None = None
    rank: float | None = None
    stands_for: int = 1


@dataclass(frozen=True)
class Thresholds:
    """Where trust ends.

    Attributes:
        watch_ratio: R below this falls short, and calls for a watch.
        alarm_shortfall: the alarm is raised when R has fallen short of ``watch_ratio`` by this
            much, summed over batches.
        watch_drift: marginal drift above this calls for a watch.
        alarm_excess: the alarm is raised when drift has exceeded ``watch_drift`` by this much,
            summed over batches; None: drift alone never raises it, as where the control's own
            marginal is not to be trusted.
        alarm_lead: the alarm is raised when other statistics have led the published ones by this
            much, summed over looks.
        alarm_doubt: the alarm is raised when doubt in the published ones has come to this much,
            summed over looks.
        alpha: level of the test of flips; each correction halves what the next test has, so that
            all together keep to it.
    """

    watch_ratio: float = 0.97
    alarm_shortfall: float = 0.1
    watch_drift: float = 0.04
    alarm_excess: float | None = 0.06
    alarm_lead: float = 0.05
    alarm_doubt: float = 0.1
    alpha: float = 0.01


@dataclass(frozen=True)
class Memory:
    """What a verdict needs to know of the past.

    Attributes:
        shortfall: how far R has fallen short so far; never below 0.
        excess: how far drift has exceeded so far; never below 0.
        lead: how far other statistics have led so far; never below 0.
        doubt: how much doubt in the published ones there was so far; never below 0.
        peak: the largest R since the last reset, at least 1.
        spent: how many corrections and changes of statistics have started the test of flips anew.
        frozen: updates were stopped for good.
        choice: the statistics under which all this was measured; None: not known yet.
    """

    shortfall: float = 0.0
    excess: float = 0.0
    lead: float = 0.0
    doubt: float = 0.0
    peak: float = 1.0
    spent: int = 0
    frozen: bool = False
    choice: str | None = None


class Verdict(NamedTuple):
    """A state, the reason in a word, and the sentence that tells a person."""

    state: State
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """A verdict, the memory that the next one needs, and in how many batches an alarm is due if
    things go on as they are.
    """

    verdict: Verdict
    memory: Memory = field(default_factory=Memory)
    room: float = math.inf


def decide(statistics: Statistics, thresholds: Thresholds, memory: Memory) -> Decision:
    """Judge one batch.

    R is watched by a cumulative sum (Page, 1954): each check adds what R lacks to ``watch_ratio``,
    or takes off what it has to spare. So a deep fall is caught at once, a shallow one when it
    lasts, and a single noisy check is forgiven. A shallow fall counts only where predictions move
    as well: clusters that loosen while every image keeps its class harm nobody. While predictions
    drift, R is held against the best that it has been: over-balancing first tightens the clusters,
    and when R falls below the control's it is late. Drift itself, the lead of other normalisation
    statistics, and doubt in the published ones are summed likewise. A check counts for all the
    batches that it stands for, so sums grow by the batch however often one looks (the CUSUM chart
    of variable sampling intervals: Reynolds, Amin and Arnold, 1990).

    Args:
        statistics: what was measured; an undefined ratio leaves the sum as it was.
        thresholds: where trust ends.
        memory: of the decision before.
    """
    after = _remembered(statistics, thresholds, memory)
    ratio, drift = statistics.ratio, statistics.drift
    # Two bets share α/2 at first, α/4 when they start anew, ...: the sum is α however often that
    # happens.
    certain = (memory.spent + 2) * math.log(2) - math.log(thresholds.alpha)
    leaning = statistics.lean is not None and statistics.lean >= certain
    balancing = statistics.mirror is not None and statistics.mirror >= certain
    if memory.frozen:
        verdict = Verdict("FROZEN", "frozen", "Updates were stopped for good; the control serves.")
    elif statistics.non_finite:
        verdict = Verdict(
            "ALARM", "non_finite", "The adapted model returned values that are not finite."
        )
    elif statistics.vanished:
        names = ", ".join(statistics.vanished[:_NAMED])
        if len(statistics.vanished) > _NAMED:
            names += f" and {len(statistics.vanished) - _NAMED} others"
        verdict = Verdict(
            "ALARM",
            "vanished_class",
            f"The adapted model no longer predicts {names}; the control does.",
        )
    elif ratio is not None and after.shortfall > thresholds.alarm_shortfall:
        verdict = Verdict("ALARM", "separation", _fallen(ratio, after.peak, thresholds))
    elif (
        drift is not None
        and thresholds.alarm_excess is not None
        and after.excess > thresholds.alarm_excess
    ):
        verdict = Verdict(
            "ALARM",
            "drift",
            f"Predictions moved by {drift:.0%} against the control's, too far for too long.",
        )
    elif (leaning or balancing) and ratio is not None and ratio < thresholds.watch_ratio:
        way = "to" if leaning else "away from"
        message = (
            f"Predictions keep turning {way} the commoner classes; class separation is "
            f"{ratio:.2f} of the control's."
        )
        verdict = Verdict("ALARM", "flips", message)
    elif statistics.lead is not None and after.lead > thresholds.alarm_lead:
        verdict = Verdict(
            "ALARM",
            "statistics",
            "The normalisation statistics that the method was published with do not suit the "
            "stream.",
        )
    elif statistics.doubt is not None and after.doubt > thresholds.alarm_doubt:
        verdict = Verdict(
            "ALARM",
            "doubt",
            "Batch statistics fit the images badly, the source's own not much worse: neither is to "
            "be trusted alone.",
        )
    elif ratio is not None and ratio < thresholds.watch_ratio:
        verdict = Verdict(
            "WATCH", "separation", f"Class separation is {ratio:.2f} of the control's."
        )
    elif drift is not None and drift > thresholds.watch_drift:
        verdict = Verdict(
            "WATCH", "drift", f"Predictions moved by {drift:.0%} against the control's."
        )
    elif ratio is None:
        verdict = Verdict(
            "OK",
            "ok",
            "Nothing speaks against the adapted model; its classes could not be compared.",
        )
    else:
        verdict = Verdict(
            "OK", "ok", "The adapted model separates the classes as the control does."
        )
    return Decision(verdict, after, _room(statistics, thresholds, after))


def _fallen(ratio: float, peak: float, thresholds: Thresholds) -> str:
    """What is said of an alarm of R, which may be above the level of the watch where it was higher
    before.
    """
    if ratio >= thresholds.watch_ratio:
        return (
            f"Class separation fell from {peak:.2f} to {ratio:.2f} of the control's while "
            "predictions moved."
        )
    return f"Class separation is {ratio:.2f} of the control's, too little for too long."


def _remembered(statistics: Statistics, thresholds: Thresholds, memory: Memory) -> Memory:
    """The memory with what a batch adds to its sums, or takes off; what is not defined changes
    nothing.
    """
    ratio, drift, batches = statistics.ratio, statistics.drift, statistics.stands_for
    shortfall, peak = memory.shortfall, memory.peak
    if ratio is not None:
        peak = max(peak, ratio)
        lacking = _lacking(statistics, thresholds, peak)
        if lacking < 0 or drift is None or drift > thresholds.watch_drift / 2 or ratio < _DEEP:
            shortfall = max(0.0, shortfall + lacking * batches)
    excess = None if drift is None else (drift - thresholds.watch_drift) * batches
    sums = {"excess": excess, "lead": statistics.lead, "doubt": statistics.doubt}
    added = {
        name: max(0.0, getattr(memory, name) + value)
        for name, value in sums.items()
        if value is not None
    }
    return replace(memory, shortfall=shortfall, peak=peak, **added)


def _lacking(statistics: Statistics, thresholds: Thresholds, peak: float) -> float:
    """What R lacks to what it should be; below 0 where it has some to spare."""
    assert statistics.ratio is not None
    drifting = statistics.drift is not None and statistics.drift > thresholds.watch_drift
    return thresholds.watch_ratio * (peak if drifting else 1.0) - statistics.ratio


def _room(statistics: Statistics, thresholds: Thresholds, memory: Memory) -> float:
    """Batches until an alarm if things go on as they are, and what R lacks counts; infinite where
    nothing is amiss.
    """
    paces = []
    if statistics.ratio is not None:
        paces.append(
            (
                thresholds.alarm_shortfall - memory.shortfall,
                _lacking(statistics, thresholds, memory.peak),
            )
        )
    if statistics.drift is not None and thresholds.alarm_excess is not None:
        paces.append(
            (thresholds.alarm_excess - memory.excess, statistics.drift - thresholds.watch_drift)
        )
    return min((left / pace for left, pace in paces if pace > 0), default=math.inf)
