"""Statistics of prediction marginals, by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.tta.marginal import (
    chance_drift,
    marginal_drift,
    predicted_counts,
    prediction_bias,
    vanished_classes,
)


def _vanished(adapted: Tensor, control: Tensor) -> NDArray[np.bool_]:
    return vanished_classes(adapted.numpy(), control.numpy())


def test_counts_leave_out_non_finite_rows() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0], [3.0, 2.0]])
    assert predicted_counts(logits, 2).tolist() == [2, 1]


def test_drift_is_total_variation() -> None:
    drift = marginal_drift(torch.tensor([30.0, 10.0, 0.0]), torch.tensor([5.0, 5.0, 10.0]))
    torch.testing.assert_close(drift, torch.tensor(0.5))
    assert marginal_drift(torch.tensor([3.0, 1.0]), torch.tensor([6.0, 2.0])).item() == 0


@pytest.mark.parametrize(("classes", "images"), [(2, 32), (4, 64), (9, 64), (100, 512)])
def test_chance_alone_makes_about_the_drift_of_draws(classes: int, images: int) -> None:
    shares = torch.arange(1.0, classes + 1) / sum(range(1, classes + 1))
    draws = torch.multinomial(
        shares, 400 * images, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    counts = [torch.bincount(draw, minlength=classes).float() for draw in draws.view(400, images)]
    mean = torch.stack([marginal_drift(count, shares) for count in counts]).mean()
    torch.testing.assert_close(chance_drift(shares, images), mean, rtol=0.05, atol=0)


def test_a_class_vanishes_only_if_the_control_still_sees_it() -> None:
    adapted, control = torch.tensor([2.0, 0.0, 98.0]), torch.tensor([25.0, 19.0, 56.0])
    assert _vanished(adapted, control).tolist() == [True, False, False]


def test_of_many_classes_some_vanish_together() -> None:
    control = torch.ones(64)
    collapsed = torch.zeros(64)
    collapsed[5] = 64
    assert _vanished(collapsed, control).tolist() == [i != 5 for i in range(64)]
    moved = control.roll(1) * (torch.arange(64) % 4 > 0) + control * (torch.arange(64) % 4 == 0) * 2
    assert not _vanished(moved, control).any(), "who uses about as many classes has not collapsed"
    elsewhere = torch.cat([torch.zeros(64), torch.ones(64)])
    assert not _vanished(elsewhere, torch.cat([torch.ones(64), torch.zeros(64)])).any()
    assert not _vanished(torch.zeros(64), torch.zeros(64)).any()
    assert not _vanished(collapsed / 16, control / 16).any(), "too few predictions to tell"


def test_bias_is_kl_over_ln_c() -> None:
    counts = torch.tensor
    assert prediction_bias(counts([5.0, 5.0]), counts([1.0, 1.0])).item() == 0
    assert prediction_bias(
        counts([8.0, 0.0, 0.0, 0.0]), counts([2.0, 2.0, 2.0, 2.0])
    ).item() == pytest.approx(1)
    by_hand = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / math.log(2)
    assert prediction_bias(counts([3.0, 1.0]), counts([4, 4])).item() == pytest.approx(by_hand)
    skewed = (0.5 * math.log(0.5 / 0.85) + 0.5 * math.log(0.5 / 0.15)) / math.log(2)
    assert prediction_bias(counts([1.0, 1.0]), counts([85, 15])).item() == pytest.approx(skewed)


def test_bias_of_degenerate_marginals() -> None:
    counts = torch.tensor
    assert prediction_bias(counts([3.0, 0.0]), counts([7, 0])).item() == 0, (
        "one class occurs, and is all that is said"
    )
    assert prediction_bias(counts([2.0, 1.0]), counts([7, 0])).item() == math.inf, (
        "what does not occur is said"
    )
    assert prediction_bias(counts([4.0]), counts([9])).item() == 0, "there is but one class"
    for predicted, true in (([0.0, 0.0], [1, 1]), ([1.0, 1.0], [0, 0]), ([0.0], [1])):
        assert math.isnan(prediction_bias(counts(predicted), counts(true)).item())
