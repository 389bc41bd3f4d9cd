"""What the guard watches for: each signal by hand, and what of it speaks against the model."""

import math
from typing import Any

import numpy as np
import pytest

from holdfast.callbacks.guard.signals import (
    BY_NAME,
    SIGNALS,
    Compared,
    History,
    measured,
)
from holdfast.callbacks.records import TRACE_COLUMNS


def both(**more: Any) -> Compared:
    given: dict[str, Any] = {
        "separation": [0.5, 2.0],
        "divergence": [0.2, 0.1],
        "answers": np.array([30.0, 30.0]),
        "expected": np.array([45.0, 15.0]),
    }
    return Compared(**{**given, **more})


def test_each_number_by_hand() -> None:
    found = measured(both())
    assert list(found) == [signal.name for signal in SIGNALS]
    assert found["J"] == 0.5
    assert found["R"] == pytest.approx(1 / 4)
    assert found["drift"] == pytest.approx(0.25)
    assert found["vanished"] == 0
    assert found["non_finite"] == 0
    assert found["gain"] == pytest.approx(-math.log(2)), "the adapted model is further away"
    gone = both(answers=np.array([60.0, 0.0]), expected=np.array([30.0, 30.0]))
    assert measured(gone)["vanished"] == 1


def test_what_cannot_be_told_is_none() -> None:
    few = measured(both(separation=[0.0, 0.0]))
    assert few["J"] is None
    assert few["R"] is None
    assert measured(both(divergence=[0.0, 0.0]))["gain"] is None
    assert measured(both(divergence=[math.nan, 0.1]))["gain"] is None
    assert measured(both(answers=np.zeros(2), expected=np.zeros(2)))["drift"] is None
    assert measured(both(separation=[math.nan, 1.0]))["R"] is None


@pytest.mark.parametrize(
    ("values", "peak", "moved", "expected"),
    [
        ({"R": 0.9}, 1.0, None, 0.1),
        ({"R": 1.2}, 1.5, None, -0.2),
        ({"R": 1.2}, 1.5, True, 0.3),  # while predictions drift, R is held against its best
        ({"R": 0.75}, 1.0, False, 0.0),  # clusters that loosen while predictions stay harm nobody
        ({"R": 0.65}, 1.0, False, 0.35),  # unless they fall deep
        ({"R": 1.1}, 1.0, False, -0.1),
        ({"R": 0.9, "gain": 0.1}, 1.0, None, 0.0),  # classes came nearer to the source's
        ({"R": 0.9, "gain": 0.0}, 1.0, None, 0.1),
        ({"R": 0.9, "gain": 0.1}, 1.2, True, 0.0),
        ({"R": 0.75, "gain": 0.1}, 1.0, None, 0.0),
        ({"R": 0.65, "gain": 0.1}, 1.0, None, 0.35),  # a deep fall counts all the same
        ({"R": 1.2, "gain": 0.1}, 1.0, None, -0.2),
        ({"R": None}, 1.0, True, None),
    ],
)
def test_a_fall_of_r(
    values: dict[str, float | None], peak: float, moved: bool | None, expected: float | None
) -> None:
    assert BY_NAME["R"].against(History(values, peak, moved)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"R": 0.9, "drift": 0.1, "gain": -0.2}, 0.1),
        ({"R": 1.1, "drift": 0.1, "gain": -0.2}, -0.1),  # separation speaks for it
        ({"R": 0.9, "drift": 0.1, "gain": 0.2}, -0.1),  # divergence does
        ({"R": None, "drift": 0.1, "gain": 0.2}, -0.1),  # of one class there is no separation
        ({"R": None, "drift": 0.1, "gain": -0.2}, 0.1),
        ({"R": 0.9, "drift": None, "gain": 0.2}, None),
        ({"R": 0.9, "drift": 0.1, "gain": None}, None),
        ({"R": 0.9, "drift": 0.1}, None),
    ],
)
def test_what_was_learned_must_have_something_that_speaks_for_it(
    values: dict[str, float | None], expected: float | None
) -> None:
    assert BY_NAME["gain"].against(History(values)) == expected


@pytest.mark.parametrize("name", ["non_finite", "vanished", "drift"])
def test_others_speak_by_their_number(name: str) -> None:
    assert BY_NAME[name].against(History({name: 0.7})) == 0.7
    assert BY_NAME[name].against(History({name: None})) is None
    assert BY_NAME[name].against(History({})) is None


def test_signals_are_columns_of_the_trace_and_their_messages_can_be_filled_in() -> None:
    assert set(BY_NAME) <= set(TRACE_COLUMNS)
    values = dict.fromkeys(BY_NAME, 0.5)
    for signal in SIGNALS:
        assert "{" not in signal.message.format(**values)
        assert signal.message or signal.limit is None, "what raises an alarm says so"


def test_drift_is_watched_and_raises_no_alarm_by_itself() -> None:
    drift, gain = BY_NAME["drift"], BY_NAME["gain"]
    assert (drift.level, drift.limit) == (0.04, None)
    assert (gain.level, gain.limit) == (0.04, 0.06)
