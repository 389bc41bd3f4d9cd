"""Which statistics, and so which un-updated network, suits the stream: a pure choice by evidence.

A stream starts under the statistics that methods are published with, each batch's own. They are hard to beat where classes come
mixed, and ruinous where they come in blocks; so others are believed only when they lead by a handicap: little for the source's
own, which nothing on the stream can mislead, much for corrected ones, which believe their own predictions. Where the predicted
mix varies between batches more than chance would have it, batch statistics are suspect, and the handicap is small.
"""

from collections.abc import Mapping

#: What methods are published with: batch statistics, or whatever a method has for itself.
HOMES = ("batch", "control")
#: Variation of the predicted mix between batches, in units of chance, above which it is taken for real. Batch statistics even
#: out each batch's predictions, so that on shuffled streams it is mostly below 1/2.
VARYING = 0.7
#: Evidence by which candidates must lead the published statistics: as they are, and where the mix varies.
_HANDICAPS: Mapping[str, tuple[float, float]] = {"source": (0.05, 0.05), "corrected": (0.3, 0.05)}
#: Candidates within so much evidence of the best are plausible while little is known.
_PLAUSIBLE = 0.8


def home_of(names: Mapping[str, object]) -> str | None:
    """The candidate that stands for the published statistics; None where there is none."""
    return next((name for name in HOMES if name in names), None)


def handicapped(evidence: Mapping[str, float], overdispersion: float) -> dict[str, float]:
    """Evidence less what each candidate must lead by.

    Args:
        evidence: of each candidate, by name.
        overdispersion: of the mix that the published statistics predict.
    """
    varying = overdispersion > VARYING
    return {name: value - _HANDICAPS.get(name, (0.0, 0.0))[varying] for name, value in evidence.items()}


def lead_of(evidence: Mapping[str, float], home: str) -> float:
    """By how much the best of the others leads the published statistics; below 0 where none does.

    Args:
        evidence: from ``handicapped``, of ``home`` and at least one other.
        home: from ``home_of``.
    """
    return max(value for name, value in evidence.items() if name != home) - evidence[home]


def choose(evidence: Mapping[str, float], current: str, hysteresis: float) -> str:
    """The candidate with the most evidence, unless the current one is about as good.

    Args:
        evidence: from ``handicapped``; not empty.
        current: the candidate in use.
        hysteresis: how much better another must be.
    """
    best = max(evidence, key=evidence.__getitem__)
    return current if current in evidence and evidence[best] <= evidence[current] + hysteresis else best


def plausible(evidence: Mapping[str, float]) -> list[str]:
    """Candidates that may be right as far as is known, the best among them."""
    return [name for name, value in evidence.items() if value >= max(evidence.values()) - _PLAUSIBLE]
