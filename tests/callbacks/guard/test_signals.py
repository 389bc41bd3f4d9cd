"""What the guard watches for: each signal by hand, and what of it speaks against the model."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.callbacks.guard.evidence import Reference, Seen, divergence
from holdfast.callbacks.guard.signals import (
    BY_NAME,
    SIGNALS,
    Compared,
    Course,
    Values,
    measured,
    named,
)
from holdfast.callbacks.records import TRACE_COLUMNS
from holdfast.tta.separation import ClassMoments

SOURCE = Reference(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.ones(2, 2))


def moments(apart: float, scatter: float = 40.0, count: float = 20.0) -> ClassMoments:
    """Two classes whose means lie so far apart."""
    mean = torch.tensor([[0.0, 0.0], [apart, 0.0]])
    return ClassMoments(torch.full((2,), count), mean, torch.full((2,), scatter))


def seen(apart: float) -> Seen:
    mean = torch.tensor([[0.0, 0.0], [apart, 0.0]])
    counts = torch.full((2,), 20.0)
    return Seen(counts, mean, mean.square() + 1, counts, torch.tensor(4.0))


def both(**more: Any) -> Compared:
    given: dict[str, Any] = {
        "adapted": moments(1.0),
        "control": moments(2.0),
        "counts": torch.tensor([[30.0, 30.0], [45.0, 15.0]]),
        "own": (seen(1.0), seen(1.5)),
        "finite": torch.tensor(1.0),
        "source": SOURCE,
        "min_count": 8.0,
        "prior": 8.0,
    }
    return Compared(**{**given, **more})


def numbers(**more: Any) -> Values:
    return named(measured(both(**more)).tolist())


def test_each_number_by_hand() -> None:
    found = numbers()
    assert found["J"] == pytest.approx(1.0 / 2.0)  # squared distance over variance within
    assert found["R"] == pytest.approx(1 / 4)
    assert found["drift"] == pytest.approx(0.25)
    assert found["vanished"] == 0
    assert found["non_finite"] == 0
    far = [divergence(seen(apart), SOURCE, 8.0).item() for apart in (1.0, 1.5)]
    assert found["gain"] == pytest.approx(math.log(far[1] / far[0]), rel=1e-5)
    assert found["gain"] is not None
    assert found["gain"] < 0, "the adapted model is further from the source"
    assert numbers(finite=torch.tensor(0.0))["non_finite"] == 1
    assert numbers(counts=torch.tensor([[60.0, 0.0], [30.0, 30.0]]))["vanished"] == 1


def test_what_cannot_be_told_is_none() -> None:
    few = numbers(adapted=moments(1.0, count=3.0), control=moments(2.0, count=3.0))
    assert few["J"] is None
    assert few["R"] is None
    assert numbers(own=None)["gain"] is None
    assert numbers(source=None)["gain"] is None
    assert numbers(counts=torch.zeros(2, 2))["drift"] is None
    assert numbers(adapted=moments(math.nan))["R"] is None
    assert named([]) == {}, "where nothing was measured"
    assert list(named(range(len(SIGNALS)))) == [signal.name for signal in SIGNALS]


class Counted(TorchDispatchMode):
    """Counts the values that are read back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def test_measuring_reads_nothing_back() -> None:
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch, Counted() as counted:
        patch.setattr(Tensor, "tolist", lambda value: read.append(value.numel()))
        found = measured(both())
    assert found.shape == (len(SIGNALS),)
    assert (read, counted.read) == ([], 0)


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
    assert BY_NAME["R"].against(Course(values, peak, moved)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"R": 0.9, "drift": 0.1, "gain": -0.2}, 0.1),
        ({"R": 1.1, "drift": 0.1, "gain": -0.2}, -0.1),  # separation speaks for it
        ({"R": 0.9, "drift": 0.1, "gain": 0.2}, -0.1),  # divergence does
        ({"R": None, "drift": 0.1, "gain": 0.2}, None),
        ({"R": 0.9, "drift": None, "gain": 0.2}, None),
        ({"R": 0.9, "drift": 0.1, "gain": None}, None),
        ({"R": 0.9, "drift": 0.1}, None),
    ],
)
def test_what_was_learned_must_have_something_that_speaks_for_it(
    values: dict[str, float | None], expected: float | None
) -> None:
    assert BY_NAME["gain"].against(Course(values)) == expected


@pytest.mark.parametrize("name", ["non_finite", "vanished", "drift"])
def test_others_speak_by_their_number(name: str) -> None:
    assert BY_NAME[name].against(Course({name: 0.7})) == 0.7
    assert BY_NAME[name].against(Course({name: None})) is None
    assert BY_NAME[name].against(Course({})) is None


def test_signals_are_columns_of_the_trace_and_their_messages_can_be_filled_in() -> None:
    assert set(BY_NAME) <= set(TRACE_COLUMNS)
    values = dict.fromkeys(BY_NAME, 0.5)
    for signal in SIGNALS:
        assert "{" not in signal.message.format(**values)
        assert (signal.limit is None) == (not signal.message), "what raises no alarm has none"


def test_drift_is_watched_and_raises_no_alarm_by_itself() -> None:
    drift, gain = BY_NAME["drift"], BY_NAME["gain"]
    assert (drift.level, drift.limit) == (0.04, None)
    assert (gain.level, gain.limit) == (0.04, 0.06)
