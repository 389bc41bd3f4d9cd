"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from holdfast.tta.metrics import balanced_accuracy, stream_metrics

NAMES = ("a", "b", "c")


def predictions(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels]
    return torch.from_numpy(logits).float().softmax(1), torch.from_numpy(labels)


def test_against_scikit_learn() -> None:
    probabilities, labels = predictions()
    metrics = stream_metrics(probabilities, labels, NAMES, ["x"] * 100 + ["y"] * 100)
    answers = probabilities.argmax(1)
    assert metrics["accuracy"] == pytest.approx(
        100 * (answers == labels).float().mean().item(), abs=1e-3
    )
    assert metrics["balanced_accuracy"] == pytest.approx(
        100 * balanced_accuracy_score(labels, answers), abs=1e-3
    )
    assert metrics["auroc"]["macro"] == pytest.approx(
        100 * roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-2
    )
    recalls = recall_score(labels, answers, average=None)
    assert list(metrics["sensitivity"].values()) == pytest.approx(list(100 * recalls), abs=1e-3)
    rest = recall_score(labels != 1, answers != 1)
    assert metrics["specificity"]["b"] == pytest.approx(100 * rest, abs=1e-3)
    last = balanced_accuracy_score(labels[150:], answers[150:])
    assert metrics["last_quarter"] == pytest.approx(100 * last, abs=1e-3)
    assert metrics["domains"]["y"]["accuracy"] == pytest.approx(
        100 * (answers == labels)[100:].float().mean().item(), abs=1e-3
    )


def test_an_absent_class_is_left_out_rather_than_zero() -> None:
    probabilities, labels = predictions()
    kept = labels != 2
    metrics = stream_metrics(probabilities[kept], labels[kept], NAMES, ["x"] * int(kept.sum()))
    assert set(metrics["sensitivity"]) == {"a", "b"}
    assert set(metrics["auroc"]["per_class"]) == {"a", "b"}
    answers = probabilities[kept].argmax(1)
    recalls = recall_score(labels[kept], answers, average=None, labels=[0, 1])
    assert metrics["balanced_accuracy"] == pytest.approx(100 * recalls.mean(), abs=1e-3)


def test_unlabelled_images_are_left_out() -> None:
    probabilities, labels = predictions()
    assert stream_metrics(probabilities, torch.full_like(labels, -1), NAMES, ["x"] * 200) == {}
    some = labels.clone()
    some[::2] = -1
    expected = balanced_accuracy_score(labels[1::2], probabilities[1::2].argmax(1))
    assert balanced_accuracy(probabilities.argmax(1), some, 3) == pytest.approx(
        100 * expected, abs=1e-3
    )
