"""The test of flips, by hand and by simulation; effective rank against closed forms."""

import math

import pytest
import torch
from tta.flips import FlipTest, flip_test, flip_votes

from tta.rank import effective_rank


def test_votes_by_hand() -> None:
    control = torch.tensor([0, 0, 1, 2, 1])
    adapted = torch.tensor([0, 1, 0, 1, 2])
    shares = torch.tensor(
        [9.0, 4.0, 4.0]
    )  # flips: to a rarer class, to the commonest, and two between equals
    assert flip_votes(adapted, control, shares).tolist() == [4.0, 0 + 1 + 0.5 + 0.5]
    assert flip_votes(control, control, shares).tolist() == [0.0, 0.0]
    assert flip_votes(control[:0], control[:0], shares).tolist() == [0.0, 0.0]


def test_a_batch_with_hardly_a_flip_has_no_vote() -> None:
    assert flip_test(FlipTest(), 2, 2.0) == FlipTest()
    assert flip_test(FlipTest(), 5, math.nan) == FlipTest()


@pytest.mark.parametrize("lean", [True, False])
def test_each_bet_wins_on_its_side_and_loses_little_on_the_other(lean: bool) -> None:
    state = FlipTest()
    for _ in range(40):
        state = flip_test(state, 10, 8.0 if lean else 2.0)
    won, lost = state.evidence if lean else reversed(state.evidence)
    assert won > math.log(100)
    assert lost == 0.0


def test_under_a_fair_null_alarms_are_rarer_than_the_level() -> None:
    rng = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(400):
        state, high = FlipTest(), 0.0
        for toward in torch.binomial(
            torch.full((60,), 8.0), torch.tensor(0.5), generator=rng
        ).tolist():
            state = flip_test(state, 8, toward)
            high = max(high, *state.evidence)
        alarms += high >= math.log(2 / 0.05)  # two bets, at half the level each
    assert alarms / 400 <= 0.05


def test_effective_rank_counts_equal_directions() -> None:
    for directions in (1, 2, 4):
        rows = torch.cat([torch.eye(5)[:directions], -torch.eye(5)[:directions]])
        torch.testing.assert_close(effective_rank(rows), torch.tensor(float(directions)))


def test_effective_rank_of_little_is_defined() -> None:
    assert effective_rank(torch.ones(8, 3)) == 0
    assert effective_rank(torch.ones(1, 3)) == 0
    assert effective_rank(torch.empty(0, 3)) == 0
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    broken = torch.cat([rows, torch.full((1, 3), math.nan)])
    torch.testing.assert_close(effective_rank(broken), effective_rank(rows))
