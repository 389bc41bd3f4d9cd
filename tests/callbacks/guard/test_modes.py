"""Verdicts and modes: every transition of the table, the sums, and the ladder."""

import math
from dataclasses import replace
from typing import Any, get_args

import pytest

from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.corrections import CORRECTIONS, rung_of
from holdfast.callbacks.guard.modes import (
    TRANSITIONS,
    Decision,
    Levels,
    Look,
    Memory,
    Mode,
    Trigger,
    judge,
    moved,
    summed,
)
from holdfast.callbacks.guard.signals import SIGNALS, Values
from holdfast.callbacks.settings import GuardConfig, Tuned

CONFIG = GuardConfig(ladder=["slow", "restore", "reset", "freeze"], window=100, tuned=Tuned(rest=3))
DECIDING = [signal.name for signal in SIGNALS if signal.limit is not None]
LEVELS = Levels(
    {"non_finite": 0.5, "vanished": 0.5, "R": 0.1, "drift": 0.2, "gain": 0.05},
    {"non_finite": 0.0, "vanished": 0.0, "R": 0.3, "gain": 0.3},
)
MODES: tuple[Mode, ...] = get_args(Mode)
TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)
LEADS: tuple[Trigger, ...] = ("adapted leads", "source leads", "none leads")
LISTED = [(mode, trigger) for mode in MODES for trigger in TRANSITIONS[mode]]
UNLISTED = [(m, t) for m in MODES for t in TRIGGERS if t not in TRANSITIONS[m]]
#: A model that is sound, and one that is lost.
SOUND: Values = {"non_finite": 0.0, "vanished": 0.0, "R": 1.05, "drift": 0.01, "gain": 0.1}
LOST: Values = {**SOUND, "vanished": 1.0}


def decide(
    memory: Memory,
    values: Values | None = None,
    leads: Trigger | None = None,
    *,
    batch: int = 50,
    choice: str | None = None,
    stands_for: int = 1,
    config: GuardConfig = CONFIG,
    skipped: bool = False,
) -> Decision:
    look = Look(batch, values, leads, choice, stands_for, skipped)
    return judge(look, memory, LEVELS, config)


def happen(mode: Mode, trigger: Trigger) -> Decision:
    """The decision where this happens, by what is measured and remembered alone."""
    memory = Memory(mode=mode, resting=2 if mode == "resting" else 0)
    if trigger in LEADS:
        return decide(memory, SOUND if mode == "adapting" else None, trigger)
    if trigger == "rested":
        return decide(replace(memory, resting=0))
    if trigger == "last alarm":
        memory = replace(memory, alarms=(40, 41, 42))
    return decide(memory, LOST)


def test_the_table_names_every_mode_and_only_what_can_happen() -> None:
    assert set(TRANSITIONS) == set(MODES)
    assert {trigger for row in TRANSITIONS.values() for trigger in row} <= set(TRIGGERS)
    assert {mode for row in TRANSITIONS.values() for mode in row.values()} <= set(MODES)
    assert len(LISTED) == 14


@pytest.mark.parametrize(("mode", "trigger"), LISTED)
def test_what_is_listed_leads_to_the_mode_that_is_listed(mode: Mode, trigger: Trigger) -> None:
    assert moved(Memory(mode=mode), trigger).mode == TRANSITIONS[mode][trigger]
    decision = happen(mode, trigger)
    assert decision.memory.mode == TRANSITIONS[mode][trigger]
    assert (decision.verdict.state == "ALARM") == (trigger in ("alarm", "last alarm"))


@pytest.mark.parametrize(("mode", "trigger"), UNLISTED)
def test_what_is_not_listed_leaves_the_mode_as_it_is(mode: Mode, trigger: Trigger) -> None:
    assert moved(Memory(mode=mode), trigger) == Memory(mode=mode)
    assert happen(mode, trigger).memory.mode == mode


def test_the_modes_of_the_table_by_hand() -> None:
    assert TRANSITIONS["adapting"] == {
        "source leads": "holding",
        "none leads": "hedging",
        "alarm": "resting",
        "last alarm": "frozen",
    }
    assert TRANSITIONS["resting"] == {"rested": "adapting", "last alarm": "frozen"}
    assert TRANSITIONS["frozen"] == {}
    for mode in ("hedging", "holding"):
        assert TRANSITIONS[mode]["adapted leads"] == "adapting"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("leads", [None, *LEADS])
@pytest.mark.parametrize("values", [None, SOUND, {**SOUND, "drift": 0.25}, LOST])
def test_a_verdict_never_says_ok_while_updates_wait(
    mode: Mode, leads: Trigger | None, values: Values | None
) -> None:
    for resting in (0, 2):
        decision = decide(Memory(mode=mode, resting=resting), values, leads)
        if decision.memory.mode != "adapting":
            assert decision.verdict.state != "OK"
        if decision.memory.mode == "frozen":
            assert decision.verdict.state in ("FROZEN", "ALARM")
        assert decision.verdict.message


@pytest.mark.parametrize(
    ("values", "state", "reason"),
    [
        (None, "OK", "ok"),
        ({}, "OK", "ok"),
        (SOUND, "OK", "ok"),
        ({"R": 0.85, "drift": 0.15}, "WATCH", "signals"),
        ({"R": 1.2, "drift": 0.30}, "OK", "ok"),  # it moves, and separation speaks for it
        ({"R": 1.2, "drift": 0.99}, "OK", "ok"),
        ({"R": 0.98, "drift": 0.30, "gain": -0.1}, "WATCH", "signals"),
        ({"R": 0.55, "drift": 0.15}, "ALARM", "R"),
        ({"R": 0.4, "drift": 0.01}, "ALARM", "R"),
        ({"R": 0.85, "drift": 0.15, "gain": 0.1}, "OK", "ok"),  # nearer to the source's classes
        ({"R": 0.4, "drift": 0.15, "gain": 0.1}, "ALARM", "R"),  # but so deep a fall counts
        ({"R": 0.98, "drift": 0.38, "gain": -0.5}, "ALARM", "gain"),
        ({"R": 1.0, "drift": 0.0, "vanished": 1.0}, "ALARM", "vanished"),
        ({"R": 0.1, "drift": 0.9, "non_finite": 1.0, "vanished": 2.0}, "ALARM", "non_finite"),
    ],
)
def test_rules(values: Values | None, state: str, reason: str) -> None:
    assert decide(Memory(), values).verdict[:2] == (state, reason)


def test_a_deep_fall_is_caught_at_once_and_a_shallow_one_when_it_lasts() -> None:
    assert decide(Memory(), {"R": 0.55}).verdict.state == "ALARM"
    memory, states = Memory(), []
    for _ in range(5):
        decision = decide(memory, {"R": 0.82})
        memory = decision.memory
        states.append(decision.verdict.state)
    assert states == ["WATCH"] * 3 + ["ALARM", "WATCH"], "0.08 a look, and then a rest"
    assert memory.mode == "resting"


def test_sums_add_up_and_are_paid_back_to_nothing() -> None:
    once = decide(Memory(), {"R": 0.75}).memory
    assert once.sums["R"] == pytest.approx(0.15)
    assert decide(once, {"R": 0.80}).memory.sums["R"] == pytest.approx(0.25)
    assert decide(once, {"R": 0.95}).memory.sums["R"] == pytest.approx(0.10)
    assert decide(once, {"R": 1.50}).memory.sums["R"] == 0
    assert once.watched
    assert not decide(once, {"R": 1.50}).memory.watched


def test_a_look_counts_for_the_batches_that_it_stands_for() -> None:
    every = Memory()
    for _ in range(3):
        every = decide(every, {"R": 0.85}).memory
    once = decide(Memory(), {"R": 0.85}, stands_for=3).memory
    assert once.sums == pytest.approx(every.sums)
    falling = {"R": 0.84, "drift": 0.15}
    assert decide(Memory(), falling, stands_for=4).verdict.state == "WATCH"
    assert decide(Memory(), falling, stands_for=6).verdict[:2] == ("ALARM", "R")


def test_what_is_not_known_changes_nothing() -> None:
    before = decide(Memory(), {"R": 0.75, "drift": 0.22}).memory
    nothing = dict.fromkeys(DECIDING)
    assert decide(before, nothing).memory == before
    assert decide(before, {}).memory == before
    assert decide(before, None).memory == before
    assert decide(before, nothing).verdict.state == "WATCH", "the watch goes on"
    ended = decide(before, {**nothing, "drift": 0.0, "R": 1.1}).verdict.state
    assert ended == "OK"


def test_while_predictions_drift_r_is_held_against_its_best() -> None:
    high = decide(Memory(), {"R": 1.4, "drift": 0.05}).memory
    assert high.peak == 1.4
    assert decide(high, {"R": 1.1, "drift": 0.05}).memory.sums["R"] == 0
    drifting = decide(high, {"R": 1.2, "drift": 0.25}).memory
    assert drifting.sums["R"] == pytest.approx(1.4 - 1.2 - 0.1)
    assert decide(high, {"R": 0.9, "drift": 0.25}).verdict[:2] == ("ALARM", "R")


def test_a_change_of_statistics_clears_what_was_measured_under_the_old_ones() -> None:
    before = replace(decide(Memory(choice="batch"), {"R": 0.75}, choice="batch").memory, peak=1.3)
    assert before.sums["R"] > 0
    after = decide(before, choice="corrected").memory
    assert (after.sums, after.peak, after.watched) == ({}, 1.0, False)
    assert after.choice == "corrected"
    assert decide(before, choice="batch").memory == before
    alarmed = replace(before, alarms=(3,), mode="resting", resting=2)
    kept = decide(alarmed, choice="corrected").memory
    assert (kept.alarms, kept.mode, kept.resting) == ((3,), "resting", 1)


def test_an_alarm_clears_sums_and_starts_a_rest_of_so_many_batches() -> None:
    decision = decide(Memory(peak=1.6), {"R": 0.1, "drift": 0.5}, batch=7)
    assert decision.correction == "slow"
    memory = decision.memory
    assert memory == Memory(mode="resting", alarms=(7,), resting=3)
    states = []
    for batch in range(8, 13):
        decision = decide(memory, batch=batch, leads="adapted leads")
        memory = decision.memory
        states.append((memory.mode, decision.verdict.state, decision.verdict.reason))
    assert states == [("resting", "WATCH", "resting")] * 3 + [("adapting", "OK", "ok")] * 2


def test_a_rest_ends_where_the_source_leads_in_holding() -> None:
    memory = Memory(mode="resting", resting=1)
    memory = decide(memory, leads="source leads").memory
    assert memory.mode == "resting"
    assert decide(memory, leads="source leads").memory.mode == "holding"


def test_alarms_climb_the_ladder_and_the_last_one_freezes_for_good() -> None:
    memory, rungs = Memory(), []
    for batch in range(30, 40):
        decision = decide(memory, {"R": 0.1, "drift": 0.5}, batch=batch)
        memory = decision.memory
        rungs.append(decision.correction)
    assert rungs[:4] == ["slow", "restore", "reset", "freeze"]
    assert rungs[4:] == [None] * 6
    assert memory.mode == "frozen"
    for leads in LEADS:
        assert decide(memory, SOUND, leads).verdict.state == "FROZEN"
        assert decide(memory, LOST, leads).memory.mode == "frozen"


def test_alarms_outside_the_window_do_not_count() -> None:
    def rung(*alarms: int) -> str:
        return rung_of(alarms, 200, CONFIG.ladder, 100, "R")

    assert rung() == "slow"
    assert rung(100) == "slow"
    assert rung(101) == "restore"
    assert rung(1, 101, 150, 160, 170) == "freeze"
    assert rung_of(tuple(range(9)), 9, ("pause",), 100, "R") == "pause"


def test_the_default_ladder_names_corrections() -> None:
    assert set(GuardConfig().ladder) <= set(CORRECTIONS)


@pytest.mark.parametrize("reason", ["non_finite", "vanished"])
def test_a_lost_model_is_reset_but_not_frozen_before_its_time(reason: str) -> None:
    def rung(ladder: tuple[str, ...], *alarms: int) -> str:
        return rung_of(alarms, 5, ladder, 100, reason)

    assert rung(("slow", "restore", "reset")) == "reset"
    assert rung(("slow", "reweight", "reset")) == "reweight"
    assert rung(("slow", "freeze")) == "reset"
    assert rung(("slow", "freeze"), 2) == "freeze"
    assert rung(("pause",)) == "reset"
    assert rung_of([], 5, ("slow", "freeze"), 100, "gain") == "slow"


def test_messages_are_filled_in_where_a_number_is_not_known() -> None:
    decision = decide(Memory(), {"R": None, "drift": None, "vanished": 2.0})
    assert "no longer predicts 2 of the classes" in decision.verdict.message
    decision = decide(Memory(), {"non_finite": 1.0})
    assert decision.verdict.reason == "non_finite"
    over = replace(Memory(), sums={"R": 9.0})
    assert decide(over, {"R": 0.4}).verdict.message.startswith("Class separation is 0.40")
    over = decide(Memory(), {"R": 1.0, "drift": 0.45, "gain": -0.1})
    assert "moved by 45%" in over.verdict.message


def test_sums_stay_finite_numbers_of_at_least_nothing() -> None:
    memory = Memory()
    for ratio in (1.5, 0.95, 0.2, math.inf, 1.0):
        memory = summed({"R": ratio, "drift": 0.05}, LEVELS, memory, 1)
        assert all(value >= 0 and math.isfinite(value) for value in memory.sums.values())


@pytest.mark.parametrize("name", DECIDING)
def test_every_signal_that_decides_can_raise_an_alarm_at_its_default_levels(name: str) -> None:
    values: dict[str, Any] = {
        "R": {"R": 0.2, "drift": 0.0},
        "gain": {"R": 1.0, "drift": 0.05, "gain": -1.0},
    }.get(name, {name: 1.0})
    memory, levels = Memory(), levels_of(GuardConfig(), None)
    for batch in range(40):
        decision = judge(Look(batch, values), memory, levels, CONFIG)
        memory = decision.memory
        if decision.correction:
            break
    assert decision.verdict[:2] == ("ALARM", name)
    assert decision.verdict.message


def test_drift_raises_no_alarm_where_anything_speaks_for_what_was_learned() -> None:
    assert "drift" not in DECIDING
    for values in ({"R": 1.1, "gain": -1.0}, {"R": 0.9, "gain": 0.1}, {"R": 0.99, "gain": None}):
        memory, levels = Memory(), levels_of(GuardConfig(), None)
        for batch in range(40):
            decision = judge(Look(batch, {**values, "drift": 0.9}), memory, levels, CONFIG)
            memory = decision.memory
        if values["gain"] is None:
            assert memory.sums.get("gain", 0.0) == 0, "what is not known changes nothing"
        else:
            assert (decision.verdict.state, memory.alarms) == ("OK", ())


def test_drift_that_nothing_speaks_for_alarms_where_it_lasts() -> None:
    memory, levels = Memory(), levels_of(GuardConfig(), None)
    for batch in range(40):
        values = {"R": 1.0, "drift": 0.06, "gain": 0.0}
        memory = judge(Look(batch, values), memory, levels, CONFIG).memory
        if memory.alarms:
            break
    assert memory.alarms == (3,), ".02 a look, and the limit is .06"


def test_drift_alone_alarms_where_somebody_sets_its_limit() -> None:
    memory, levels = Memory(), levels_of(GuardConfig(limits={"drift": 0.1}), None)
    for batch in range(40):
        decision = judge(
            Look(batch, {"R": 1.1, "drift": 0.09, "gain": 0.1}), memory, levels, CONFIG
        )
        memory = decision.memory
        if memory.alarms:
            break
    assert memory.alarms == (2,), ".05 a look above the default level of .04"
    assert (decision.verdict.state, decision.verdict.reason) == ("ALARM", "drift")


def test_where_batch_after_batch_is_skipped_it_is_not_ok() -> None:
    """Nothing speaks against a model that learns nothing, and yet updates do not go on."""
    memory, states = Memory(), []
    for skipped in (True, True, True, False, True, False):
        decision = decide(memory, SOUND, skipped=skipped)
        memory = decision.memory
        states.append(decision.verdict.state)
    assert states == ["OK", "WATCH", "WATCH", "OK", "OK", "OK"]
    assert decide(Memory(idle=5), skipped=True).verdict.reason == "skipped"
