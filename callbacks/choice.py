"""Which statistics, and so which un-updated network, suits the stream: a pure choice by evidence."""

from collections.abc import Mapping

#: What the evidence of a candidate must make up for: the more it assumes about the stream, the more it has to show.
HANDICAPS: Mapping[str, float] = {"corrected": 0.03, "anchored": 0.3}


def choose(evidence: Mapping[str, float], current: str | None, hysteresis: float) -> str:
    """The candidate with the most evidence, unless the current one is about as good.

    Args:
        evidence: of each candidate, by name; comparable numbers.
        current: the candidate in use; None where there is none yet.
        hysteresis: how much better another must be.

    Returns:
        A key of ``evidence``; ``current`` where there is no evidence at all.
    """
    if not evidence:
        assert current is not None, "neither evidence nor a candidate in use"
        return current
    scores = {name: value - HANDICAPS.get(name, 0.0) for name, value in evidence.items()}
    best = max(scores, key=scores.__getitem__)
    if current in scores and scores[best] <= scores[current] + hysteresis:
        return current
    return best
