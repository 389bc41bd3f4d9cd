"""When the guard looks: ever more rarely while the stream is calm, at once when things happen."""

from itertools import pairwise

import pytest

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.guard.schedule import Glance, Schedule

TUNED = GuardConfig().tuned


def looks(batches: int, watching: bool = False) -> list[int]:
    schedule, found = Schedule(), []
    for batch in range(batches):
        if schedule.due(batch):
            found.append(batch)
            schedule = schedule.looked(batch, TUNED, watching=watching, again=False)
    return found


def test_a_calm_stream_is_looked_at_after_half_of_the_calm_so_far() -> None:
    found = looks(400)
    assert found[:9] == [0, 1, 2, 3, 5, 8, 12, 18, 27]
    assert found[-1] - found[-2] == TUNED.longest == 32


def test_a_watch_is_looked_at_every_few_batches_and_the_next_look_stands_for_them() -> None:
    found = looks(60, watching=True)
    assert {later - earlier for earlier, later in pairwise(found[8:])} == {4}
    watching = Schedule().looked(20, TUNED, watching=True, again=False)
    assert watching.next_look == 24
    assert watching.stands_for(24) == 4
    assert watching.stands_for(22) == 2, "a jump may call for it earlier"
    calm = Schedule().looked(20, TUNED, watching=False, again=False)
    assert calm.stands_for(30) == 1


@pytest.mark.parametrize("watching", [True, False])
def test_after_a_jump_the_next_batch_is_looked_at_too(watching: bool) -> None:
    assert Schedule().looked(40, TUNED, watching=watching, again=True).next_look == 41


def test_calm_starts_anew_after_something_happened() -> None:
    schedule = Schedule().looked(99, TUNED, watching=True, again=False).stirred(100)
    assert schedule.due(101)
    assert not schedule.due(100)
    assert schedule.stands_for(101) == 1
    assert schedule.looked(101, TUNED, watching=False, again=False).next_look == 102


def test_a_glance_tells_a_jump_of_the_mix_from_chance_and_from_what_is_not_finite() -> None:
    even, glance = Schedule().glanced([0, 16, 16, 16, 16], TUNED)
    assert glance == Glance(finite=True, startled=False)
    assert not glance.calls
    assert even.mix == (16, 16, 16, 16)
    after, jumped = even.glanced([0, 64, 0, 0, 0], TUNED)
    assert jumped.startled
    assert jumped.calls
    assert after.mix == pytest.approx((30.4, 11.2, 11.2, 11.2)), "the mix follows the stream"
    assert not even.glanced([0, 1, 0, 0, 0], TUNED)[1].startled, "one image says nothing of a mix"
    same, broken = even.glanced([1, 0, 16, 16, 16], TUNED)
    assert broken.calls
    assert broken.values == {"non_finite": 1.0}
    assert same.mix == even.mix, "what is broken teaches nothing"
    assert even.glanced([1, 0, 0, 0, 0], TUNED)[1] == Glance(finite=False, startled=False)
    assert after.stirred(7).mix == after.mix
