"""The verdict, a pure function: every rule, and what it remembers."""

import math
from dataclasses import replace

import pytest
from callbacks.judge import corrected, judge, rung_of
from callbacks.verdict import Memory, Statistics, Thresholds, decide

LIMITS = Thresholds(
    watch_ratio=0.85, alarm_shortfall=0.3, watch_drift=0.2, alarm_excess=0.2, alarm_lead=0.1
)


@pytest.mark.parametrize(
    ("statistics", "shortfall", "state", "reason"),
    [
        (Statistics(), 0.0, "OK", "ok"),
        (Statistics(ratio=1.2, drift=0.05), 0.0, "OK", "ok"),
        (Statistics(ratio=1.2, drift=0.30), 0.0, "WATCH", "drift"),
        (Statistics(ratio=0.8, drift=0.05), 0.0, "WATCH", "separation"),
        (Statistics(ratio=0.65), 0.0, "WATCH", "separation"),
        (Statistics(ratio=0.65), 0.2, "ALARM", "separation"),
        (Statistics(ratio=0.45), 0.0, "ALARM", "separation"),
        (Statistics(ratio=1.0, vanished=("edge",)), 0.0, "ALARM", "vanished_class"),
        (Statistics(non_finite=True), 0.0, "ALARM", "non_finite"),
    ],
)
def test_rules(statistics: Statistics, shortfall: float, state: str, reason: str) -> None:
    verdict = decide(statistics, LIMITS, Memory(shortfall=shortfall)).verdict
    assert (verdict.state, verdict.reason) == (state, reason)


def test_the_shortfall_adds_up_is_paid_back_and_waits_where_nothing_is_known() -> None:
    once = decide(Statistics(ratio=0.75), LIMITS, Memory()).memory
    assert once.shortfall == pytest.approx(0.10)
    assert decide(Statistics(ratio=0.80), LIMITS, once).memory.shortfall == pytest.approx(0.15)
    assert decide(Statistics(ratio=0.90), LIMITS, once).memory.shortfall == pytest.approx(0.05)
    assert decide(Statistics(ratio=1.50), LIMITS, once).memory.shortfall == 0
    assert decide(Statistics(ratio=None), LIMITS, once).memory == once


def test_a_verdict_can_be_had_after_any_number_of_corrections() -> None:
    assert (
        decide(Statistics(ratio=0.9, lean=700.0), LIMITS, Memory(spent=1000)).verdict.reason
        != "flips"
    )
    assert decide(Statistics(ratio=1.0), LIMITS, Memory(spent=5000)).verdict.state == "OK"


def test_each_new_start_of_the_bets_halves_what_is_left_of_alpha() -> None:
    memory = judge(Statistics(ratio=1.0), LIMITS, Memory(), "OK", "batch").memory
    assert memory.spent == 0
    memory = judge(Statistics(ratio=1.0), LIMITS, memory, "OK", "source").memory
    assert (memory.spent, memory.choice) == (1, "source"), (
        "another control, and bets that start anew"
    )
    alarm = judge(Statistics(lead=1.0), LIMITS, memory, "OK", "source")
    assert (alarm.verdict.reason, alarm.memory) == ("statistics", Memory(spent=2))
    memory = judge(Statistics(ratio=1.0), LIMITS, alarm.memory, "ALARM", "batch").memory
    assert memory.spent == 2, "that change was counted by the alarm"
    assert corrected("slow", memory).spent == 3
    bet = Statistics(ratio=0.8, lean=math.log(2**3 / LIMITS.alpha))
    assert decide(bet, LIMITS, Memory(spent=1)).verdict.reason == "flips"
    assert decide(bet, LIMITS, Memory(spent=2)).verdict.reason != "flips"


def test_the_sentence_tells_what_happened() -> None:
    fallen = decide(
        Statistics(ratio=1.1, drift=0.9),
        replace(LIMITS, alarm_excess=None),
        Memory(shortfall=0.3, peak=1.5),
    ).verdict
    assert (fallen.state, "fell from 1.50 to 1.10" in fallen.message) == ("ALARM", True)
    assert "could not be compared" in decide(Statistics(), LIMITS, Memory()).verdict.message


def test_while_predictions_drift_the_ratio_is_held_against_its_best() -> None:
    high = decide(Statistics(ratio=1.4, drift=0.1), LIMITS, Memory()).memory
    assert high.peak == 1.4
    steady = decide(Statistics(ratio=1.0, drift=0.1), LIMITS, high)
    assert (steady.verdict.state, steady.memory.shortfall) == ("OK", 0)
    drifting = decide(Statistics(ratio=1.0, drift=0.3), LIMITS, high)
    assert drifting.memory.shortfall == pytest.approx(0.85 * 1.4 - 1.0)
    assert (
        decide(Statistics(ratio=1.0, drift=0.3), LIMITS, drifting.memory).verdict.state == "ALARM"
    )


def test_clusters_that_loosen_while_predictions_stay_count_only_where_they_fall_deep() -> None:
    assert decide(Statistics(ratio=0.6, drift=0.02), LIMITS, Memory()).memory.shortfall == 0
    assert decide(
        Statistics(ratio=0.6, drift=0.12), LIMITS, Memory()
    ).memory.shortfall == pytest.approx(0.25)
    assert decide(Statistics(ratio=0.4, drift=0.02), LIMITS, Memory()).verdict[:2] == (
        "ALARM",
        "separation",
    )


def test_drift_adds_up_to_an_alarm_unless_the_control_is_not_to_be_trusted() -> None:
    once = decide(Statistics(ratio=1.0, drift=0.35), LIMITS, Memory())
    assert once.verdict.state == "WATCH"
    assert once.memory.excess == pytest.approx(0.15)
    twice = Statistics(ratio=1.0, drift=0.30)
    assert decide(twice, LIMITS, once.memory).verdict[:2] == ("ALARM", "drift")
    assert decide(twice, replace(LIMITS, alarm_excess=None), once.memory).verdict.state == "WATCH"
    assert decide(Statistics(ratio=1.0, drift=0.05), LIMITS, once.memory).memory.excess == 0


def test_a_check_counts_for_the_batches_that_it_stands_for_and_tells_how_many_are_left() -> None:
    drifting = Statistics(ratio=1.0, drift=0.22)
    every = Memory()
    for _ in range(4):
        every = decide(drifting, LIMITS, every).memory
    once = decide(replace(drifting, stands_for=4), LIMITS, Memory())
    assert once.memory.excess == pytest.approx(every.excess) == pytest.approx(4 * 0.02)
    assert once.room == pytest.approx((0.2 - 0.08) / 0.02)
    falling = decide(Statistics(ratio=0.80, drift=0.22, stands_for=2), LIMITS, Memory(peak=1.0))
    assert falling.memory.shortfall == pytest.approx(2 * 0.05)
    assert falling.room == pytest.approx((0.3 - 0.1) / 0.05), (
        "the sum that comes to its alarm first"
    )
    assert decide(drifting, replace(LIMITS, alarm_excess=None), Memory()).room == math.inf
    assert decide(Statistics(ratio=1.0, drift=0.1), LIMITS, every).room == math.inf


def test_a_lost_model_is_reset_but_not_frozen_before_its_time() -> None:
    assert rung_of([], 5, ["slow", "restore", "reset"], 100, "non_finite") == "reset"
    assert rung_of([], 5, ["slow", "freeze"], 100, "vanished_class") == "reset"
    assert rung_of([2], 5, ["slow", "freeze"], 100, "vanished_class") == "freeze"
    assert rung_of([], 5, ["slow", "freeze"], 100, "drift") == "slow"


def test_a_watch_goes_on_where_nothing_is_known() -> None:
    verdict = judge(Statistics(), LIMITS, Memory(), "WATCH").verdict
    assert (verdict.state, verdict.reason) == ("WATCH", "held")
    assert verdict.message.endswith("the watch goes on.")


def test_frozen_stays_frozen() -> None:
    assert decide(Statistics(ratio=1.5), LIMITS, Memory(frozen=True)).verdict.state == "FROZEN"


def test_the_sentence_names_the_class() -> None:
    assert "edge" in decide(Statistics(vanished=("edge",)), LIMITS, Memory()).verdict.message


def test_doubt_in_published_statistics_adds_up_and_is_paid_back() -> None:
    limits = replace(LIMITS, alarm_doubt=0.2)
    once = decide(Statistics(ratio=1.0, doubt=0.15), limits, Memory())
    assert (once.verdict.state, once.memory.doubt) == ("OK", pytest.approx(0.15))
    assert decide(Statistics(ratio=1.0), limits, once.memory).memory.doubt == once.memory.doubt
    assert decide(Statistics(doubt=-1.0), limits, once.memory).memory.doubt == 0
    assert decide(Statistics(doubt=0.1), limits, once.memory).verdict[:2] == ("ALARM", "doubt")
    assert (
        decide(Statistics(lead=1.0, doubt=1.0), limits, once.memory).verdict.reason == "statistics"
    )  # the better remedy


def test_a_lead_of_other_statistics_adds_up_and_is_paid_back() -> None:
    once = decide(Statistics(ratio=1.0, lead=0.08), LIMITS, Memory())
    assert (once.verdict.state, once.memory.lead) == ("OK", pytest.approx(0.08))
    assert decide(Statistics(ratio=1.0), LIMITS, once.memory).memory.lead == once.memory.lead
    assert decide(Statistics(lead=-1.0), LIMITS, once.memory).memory.lead == 0
    assert decide(Statistics(lead=0.03), LIMITS, once.memory).verdict[:2] == ("ALARM", "statistics")
    # A collapse under the statistics in use comes first: it calls for a correction of the weights.
    assert decide(Statistics(ratio=0.4, lead=1.0), LIMITS, Memory()).verdict.reason == "separation"


def test_flips_raise_the_alarm_where_r_confirms_and_each_correction_halves_the_level() -> None:
    certain = math.log(4 / LIMITS.alpha)
    assert decide(Statistics(ratio=0.8, lean=certain), LIMITS, Memory()).verdict[:2] == (
        "ALARM",
        "flips",
    )
    assert decide(Statistics(ratio=0.8, mirror=certain), LIMITS, Memory()).verdict[:2] == (
        "ALARM",
        "flips",
    )
    assert decide(Statistics(ratio=0.9, lean=99.0), LIMITS, Memory()).verdict.state == "OK"
    assert (
        decide(Statistics(ratio=0.8, lean=certain), LIMITS, Memory(spent=1)).verdict.state
        == "WATCH"
    )
    assert (
        decide(
            Statistics(ratio=0.8, lean=certain + math.log(2)), LIMITS, Memory(spent=1)
        ).verdict.state
        == "ALARM"
    )
    assert corrected("slow", Memory(spent=1)) == Memory(spent=2)
