"""Separation against hand-computed values, scikit-learn, and its promised properties."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import calinski_harabasz_score

from holdfast.tta.separation import class_moments, merge, no_moments, separation, separation_of


def clusters(
    counts: list[int], seed: int = 0, spread: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    centers = 4 * torch.eye(len(counts), 8)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return centers[labels] + spread * torch.randn(len(labels), 8, generator=rng), labels


def test_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [10.0, 4.0]])
    # class means (1, 0) and (10, 2): squared distance 85; variances 1 and 4: mean 2.5
    torch.testing.assert_close(
        separation(features, torch.tensor([0, 0, 1, 1]), 2), torch.tensor(85 / 2.5)
    )


def test_equals_calinski_harabasz_on_balanced_classes() -> None:
    features, labels = clusters([50, 50, 50])
    n, k = len(labels), 3
    # For K balanced classes of n/K samples: CH = J·(n − K)/(2K), since B = n·(K−1)/(2K)·D and W =
    # n·within.
    expected = calinski_harabasz_score(features.numpy(), labels.numpy()) * 2 * k / (n - k)
    assert separation(features, labels, 3).item() == pytest.approx(expected, rel=1e-4)


def test_label_shift_alone_hardly_moves_it() -> None:
    balanced = separation(*clusters([200, 200]), 2).item()
    skewed = separation(*clusters([360, 40]), 2).item()
    assert skewed == pytest.approx(balanced, rel=0.15)


def test_merged_batches_equal_all_samples_at_once() -> None:
    features, labels = clusters([30, 20, 10])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    moments = no_moments(3, 8)
    for rows in order.split(7):
        moments = merge(moments, class_moments(features[rows], labels[rows], 3))
    for merged, whole in zip(moments, class_moments(features, labels, 3), strict=True):
        torch.testing.assert_close(merged, whole, rtol=1e-4, atol=1e-4)


def test_decay_weights_the_past() -> None:
    old, new = clusters([10, 10], seed=0), clusters([10, 10], seed=1)
    merged = merge(class_moments(*old, 2), class_moments(*new, 2), decay=0.5)
    expected = (0.5 * class_moments(*old, 2).mean + class_moments(*new, 2).mean) / 1.5
    torch.testing.assert_close(merged.mean, expected)
    assert merged.counts.tolist() == [15, 15]


@pytest.mark.parametrize("counts", [[], [40], [40, 1]])
def test_zero_where_fewer_than_two_classes_have_samples(counts: list[int]) -> None:
    features, labels = clusters([*counts, *[0] * (3 - len(counts))])
    assert separation(features, labels, 3).item() == 0


def test_non_finite_rows_are_left_out() -> None:
    features, labels = clusters([20, 20])
    expected = separation(features[1:], labels[1:], 2)
    features[0, 3] = math.inf
    torch.testing.assert_close(separation(features, labels, 2), expected)


def test_identical_features_have_no_separation() -> None:
    assert separation(torch.ones(8, 4), torch.tensor([0, 1] * 4), 2).item() == 0
    assert math.isfinite(separation(torch.eye(2).repeat(4, 1), torch.tensor([0, 1] * 4), 2).item())


def test_large_offsets_do_not_cancel() -> None:
    features, labels = clusters([50, 50])
    torch.testing.assert_close(
        separation(features + 1000, labels, 2), separation(features, labels, 2), rtol=1e-3, atol=0
    )


def test_a_thousand_classes() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32))
    moments = class_moments(features, torch.arange(64) * 15, 1000)
    assert separation_of(moments).item() == 0
    assert separation_of(moments, min_count=1).isfinite()
