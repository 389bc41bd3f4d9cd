"""Bets and bounds that may be looked at after every sample."""

import math

import numpy as np
import pytest
import torch

from holdfast.tta.divergence import departure, running_class_means
from holdfast.tta.sequential import MeanBound, Wager, bounded, wagered


def test_a_bet_by_hand() -> None:
    bets, wager = wagered([1.0, 1.0], Wager(), gamma=0.1, clip=1.8)
    assert bets == [0.0, 0.1]  # the first gradient is ½, and a step free of scale is gamma long
    second = 0.5 / 1.05
    assert wager.log_wealth == pytest.approx(math.log(1.05))
    assert wager.squares == pytest.approx(0.25 + second**2)
    assert wager.bet == pytest.approx(0.1 + 0.1 * second / math.sqrt(0.25 + second**2))
    assert wagered([1.0] * 2000, wager, gamma=0.1, clip=1.8)[1].bet == 1.8


def test_a_bet_goes_on_where_it_stood() -> None:
    values = np.random.default_rng(0).random(50).tolist()
    _, half = wagered(values[:20], Wager(), 0.1, 1.8)
    assert wagered(values[20:], half, 0.1, 1.8)[1] == wagered(values, Wager(), 0.1, 1.8)[1]


def test_the_bound_is_the_published_formula() -> None:
    x, alpha = (np.random.default_rng(0).random(300) < 0.3).astype(float), 0.05
    n = np.arange(1, 301)
    mean = (0.5 + x.cumsum()) / (n + 1)
    variance = (0.25 + ((x - mean) ** 2).cumsum()) / (n + 1)
    mean, variance = np.r_[0.5, mean[:-1]], np.r_[0.25, variance[:-1]]
    weight = np.minimum(np.sqrt(2 * np.log(1 / alpha) / (variance * n * np.log(1 + n))), 0.5)
    psi = (-np.log(1 - weight) - weight) / 4
    expected = (weight @ x - np.log(1 / alpha) - (4 * (x - mean) ** 2) @ psi) / weight.sum()
    state = bounded(x[100:].tolist(), bounded(x[:100].tolist(), MeanBound(), alpha), alpha)
    assert state.lower(alpha) == pytest.approx(expected)
    assert state.mean == pytest.approx(x.mean())
    assert MeanBound().lower(alpha) == -math.inf


def test_the_bound_errs_at_most_as_often_as_it_says() -> None:
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        state = MeanBound()
        for batch in rng.random((15, 20)) < 0.3:
            state = bounded(batch.tolist(), state, 0.1)
            if state.lower(0.1) > 0.3:
                wrong += 1
                break
    assert wrong <= 20


def test_divergence_by_hand() -> None:
    mean = torch.zeros(3, 2)
    features = torch.tensor([[1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    means, present = running_class_means(mean, features, torch.tensor([0, 0, 2]), memory=0.75)
    assert present.tolist() == [True, False, True]
    torch.testing.assert_close(means, torch.tensor([[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]))
    # Distances .5 and 1 of the classes that were seen: the mean is taken first, then the
    # exponential.
    gamma = departure(means[present], mean[present], torch.full((2, 2), 0.5))
    assert float(gamma) == pytest.approx(1 - math.exp(-0.75), abs=1e-5)
