"""Separation against hand-computed values, scikit-learn, and its promised properties."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import calinski_harabasz_score

from holdfast.tta.separation import ClassMoments, separation

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]


def clusters(counts: list[int], seed: int = 0, spread: float = 1.0) -> Samples:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centers = 4 * np.eye(len(counts), 8)
    features = centers[labels] + spread * rng.normal(size=(len(labels), 8))
    return features.astype(np.float32), labels


def moments_of(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> Any:
    moments = ClassMoments(classes, features.shape[1])
    moments.take(features, labels)
    return moments


def test_by_hand() -> None:
    features = np.array([[0, 0], [2, 0], [10, 0], [10, 4]], np.float32)
    # class means (1, 0) and (10, 2): squared distance 85; variances 1 and 4: mean 2.5
    assert separation(features, np.array([0, 0, 1, 1]), 2) == pytest.approx(85 / 2.5)


def test_equals_calinski_harabasz_on_balanced_classes() -> None:
    features, labels = clusters([50, 50, 50])
    n, k = len(labels), 3
    # For K balanced classes of n/K samples: CH = J·(n − K)/(2K), since B = n·(K−1)/(2K)·D and W =
    # n·within.
    expected = calinski_harabasz_score(features, labels) * 2 * k / (n - k)
    assert separation(features, labels, 3) == pytest.approx(expected, rel=1e-4)


def test_label_shift_alone_hardly_moves_it() -> None:
    balanced = separation(*clusters([200, 200]), 2)
    skewed = separation(*clusters([360, 40]), 2)
    assert skewed == pytest.approx(balanced, rel=0.15)


def test_batches_in_turn_equal_all_samples_at_once() -> None:
    features, labels = clusters([30, 20, 10])
    order = np.random.default_rng(1).permutation(60)
    moments, whole = ClassMoments(3, 8), moments_of(features, labels, 3)
    for rows in np.array_split(order, 9):
        moments.take(features[rows], labels[rows])
    for name in ("counts", "mean", "scatter"):
        np.testing.assert_allclose(getattr(moments, name), getattr(whole, name), 1e-4, 1e-4)


def test_decay_weights_the_past() -> None:
    old, new = clusters([10, 10], seed=0), clusters([10, 10], seed=1)
    both = moments_of(*old, 2)
    both.take(*new, decay=0.5)
    expected = (0.5 * moments_of(*old, 2).mean + moments_of(*new, 2).mean) / 1.5
    np.testing.assert_allclose(both.mean, expected, rtol=1e-5, atol=1e-6)
    assert both.counts.tolist() == [15, 15]


def test_a_class_that_does_not_come_keeps_its_place_and_fades() -> None:
    both, before = moments_of(*clusters([10, 10]), 2), moments_of(*clusters([10, 10]), 2)
    both.take(*clusters([4, 0], seed=1), decay=0.5)
    assert both.counts.tolist() == [9, 5]
    np.testing.assert_array_equal(both.mean[1], before.mean[1])
    assert both.scatter[1] == before.scatter[1] / 2


@pytest.mark.parametrize("counts", [[], [40], [40, 1]])
def test_zero_where_fewer_than_two_classes_have_samples(counts: list[int]) -> None:
    features, labels = clusters([*counts, *[0] * (3 - len(counts))])
    assert separation(features, labels, 3) == 0


def test_non_finite_rows_are_left_out() -> None:
    features, labels = clusters([20, 20])
    expected = separation(features[1:], labels[1:], 2)
    for bad in (math.inf, math.nan, 1e30):
        features[0, 3] = bad
        assert separation(features, labels, 2) == pytest.approx(expected)


def test_identical_features_have_no_separation() -> None:
    labels = np.array([0, 1] * 4)
    assert separation(np.ones((8, 4), np.float32), labels, 2) == 0
    assert math.isfinite(separation(np.tile(np.eye(2, dtype=np.float32), (4, 1)), labels, 2))


def test_large_offsets_do_not_cancel() -> None:
    features, labels = clusters([50, 50])
    far = separation(features + np.float32(1000), labels, 2)
    assert far == pytest.approx(separation(features, labels, 2), rel=1e-3)


def test_a_thousand_classes() -> None:
    features = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    moments = moments_of(features, np.arange(64) * 15, 1000)
    assert moments.separation() == 0
    assert math.isfinite(moments.separation(min_count=1))


def test_state_goes_on_exactly() -> None:
    straight, taken_up = moments_of(*clusters([10, 10]), 2), ClassMoments(2, 8)
    taken_up.load_state_dict(straight.state_dict())
    for moments in (straight, taken_up):
        moments.take(*clusters([5, 6], seed=2), decay=0.7)
    assert taken_up.separation() == straight.separation()
