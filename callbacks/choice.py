"""Which statistics, and so which un-updated network, suits the stream: a pure choice by evidence."""

from collections.abc import Mapping


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
    best = max(evidence, key=evidence.__getitem__)
    if current is not None and current in evidence and evidence[best] <= evidence[current] + hysteresis:
        return current
    return best
