"""Subgroups, groups and intervals against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tests.test_metrics import NAMES, predictions
from tta.errors import InputError
from tta.scores import check_groups, intervals, scores


def test_subgroups_and_the_worst_of_them() -> None:
    probabilities, labels = predictions()
    site = np.array(["a"] * 120 + ["b"] * 60 + [""] * 20)
    metrics = scores(
        probabilities,
        labels,
        NAMES,
        ["x"] * 200,
        groups=np.arange(200).astype(str),
        columns={"site": site},
    )
    answers = probabilities.argmax(1)
    known = {}
    for name, rows in (("a", site == "a"), ("b", site == "b"), ("(unknown)", site == "")):
        part = metrics["subgroups"]["site"][name]
        known[name] = part["balanced_accuracy"]
        assert part["images"] == rows.sum()
        assert known[name] == pytest.approx(
            100 * balanced_accuracy_score(labels[rows], answers[rows]), abs=1e-3
        )
    worst = min(known, key=lambda name: known[name])
    assert metrics["worst"]["site"] == {"group": worst, "balanced_accuracy": known[worst]}


def test_groups_are_scored_by_their_mean_probabilities() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    labels = torch.tensor([0, 0, 1, -1])
    groups = np.array(["p", "p", "q", "q"])
    metrics = scores(
        probabilities, labels, ("n", "y"), ["x"] * 4, groups=groups, columns={}, aggregate=True
    )
    assert metrics["accuracy"] == 100  # the second image alone is wrong, its patient is not
    assert metrics["scored"] == "2 groups"
    assert "last_quarter" not in metrics


def test_groups_that_cannot_be_scored() -> None:
    groups = np.array(["p", "p", "q"])
    check_groups(np.array([0, -1, 1]), groups, {"sex": np.array(["F", "F", "M"])})
    with pytest.raises(InputError, match="one label a group, and group p"):
        check_groups(np.array([0, 1, 1]), groups, {})
    with pytest.raises(InputError, match="one sex a group"):
        check_groups(np.array([0, 0, 1]), groups, {"sex": np.array(["F", "M", "M"])})


def test_intervals_resample_groups() -> None:
    probabilities, labels = predictions(400)
    alone = intervals(probabilities, labels, np.arange(400), 300)
    answers = probabilities.argmax(1)
    points = {
        "accuracy": 100 * (answers == labels).float().mean().item(),
        "balanced_accuracy": 100 * balanced_accuracy_score(labels, answers),
        "auroc": 100 * roc_auc_score(labels, probabilities, multi_class="ovr"),
    }
    for name, point in points.items():
        low, high = alone[name]
        assert low < point < high
    p = points["accuracy"] / 100
    assert alone["accuracy"][1] - alone["accuracy"][0] == pytest.approx(
        2 * 196 * (p * (1 - p) / 400) ** 0.5, rel=0.2
    )
    copies = [torch.cat([t] * 4) for t in (probabilities, labels)]
    together = intervals(
        copies[0], copies[1], np.tile(np.arange(400), 4), 300
    )  # copies are no more evidence
    assert together == alone
    assert intervals(probabilities, labels, np.arange(400), 300) == alone
