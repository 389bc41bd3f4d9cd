"""The verdict, a pure function: every rule, and what it remembers."""

import pytest

from callbacks.verdict import Memory, Statistics, Thresholds, decide

LIMITS = Thresholds()


@pytest.mark.parametrize(
    ("statistics", "low", "state", "reason"),
    [
        (Statistics(), 0, "OK", "ok"),
        (Statistics(ratio=1.2, drift=0.05), 0, "OK", "ok"),
        (Statistics(ratio=1.2, drift=0.30), 0, "WATCH", "drift"),
        (Statistics(ratio=0.8, drift=0.05), 0, "WATCH", "separation"),
        (Statistics(ratio=0.65), 0, "WATCH", "separation"),
        (Statistics(ratio=0.65), 1, "ALARM", "separation"),
        (Statistics(ratio=0.45), 0, "ALARM", "separation"),
        (Statistics(ratio=1.0, vanished=("edge",)), 0, "ALARM", "vanished_class"),
        (Statistics(non_finite=True), 0, "ALARM", "non_finite"),
    ],
)
def test_rules(statistics: Statistics, low: int, state: str, reason: str) -> None:
    verdict = decide(statistics, LIMITS, Memory(low_checks=low)).verdict
    assert (verdict.state, verdict.reason) == (state, reason)


def test_a_healthy_check_forgets_a_low_one_and_an_undefined_one_does_not() -> None:
    once = decide(Statistics(ratio=0.65), LIMITS, Memory()).memory
    assert once.low_checks == 1
    assert decide(Statistics(ratio=0.95), LIMITS, once).memory.low_checks == 0
    assert decide(Statistics(ratio=None), LIMITS, once).memory.low_checks == 1


def test_frozen_stays_frozen() -> None:
    assert decide(Statistics(ratio=1.5), LIMITS, Memory(frozen=True)).verdict.state == "FROZEN"


def test_the_sentence_names_the_class() -> None:
    assert "edge" in decide(Statistics(vanished=("edge",)), LIMITS, Memory()).verdict.message
