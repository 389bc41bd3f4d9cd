"""Subgroups, groups and intervals against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from holdfast.tta.errors import InputError
from holdfast.tta.intervals import difference, intervals
from holdfast.tta.scores import check_groups, in_order, scores
from holdfast.tta.worth import Units, held_against
from tests.test_metrics import NAMES, predictions


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
    assert list(metrics["subgroups"]["site"]) == ["a", "b", "(unknown)"]
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
    assert (metrics["level"], metrics["groups"], metrics["images"]) == ("group", 2, 3)
    assert metrics["domains"]["x"]["groups"] == 2
    assert "last_quarter" not in metrics
    metrics = scores(probabilities, labels, ("n", "y"), ["x"] * 4, groups=groups, columns={})
    assert (metrics["level"], metrics["groups"], metrics["images"]) == ("image", 2, 3)
    assert "last_quarter" not in metrics  # of one image


def test_the_worst_is_none_of_a_handful() -> None:
    probabilities, labels = predictions()
    age = np.array(["60-79"] * 3 + ["5-9"] * 97 + ["10-19"] * 100)
    probabilities[:3] = torch.nn.functional.one_hot((labels[:3] + 1) % 3, 3)  # all wrong
    metrics = scores(
        *(probabilities, labels, NAMES, ["x"] * 200),
        groups=np.arange(200),
        columns={"age": age},
        bootstrap=200,
    )
    parts = metrics["subgroups"]["age"]
    assert list(parts) == ["5-9", "10-19", "60-79"]
    assert parts["60-79"]["balanced_accuracy"] == 0
    assert metrics["worst"]["age"]["group"] != "60-79"
    for part in (metrics, parts["5-9"], metrics["domains"]["x"]):
        low, high = part["intervals"]["balanced_accuracy"]
        assert low < part["balanced_accuracy"] < high
        for name, (low, high) in part["intervals"]["sensitivity"].items():
            assert low <= part["sensitivity"][name] <= high


def test_values_stand_in_the_order_of_their_numbers() -> None:
    bands = ["100-119", "(unknown)", "20-39", "0-19", "b2", "b10", "a"]
    assert in_order(bands) == ["0-19", "20-39", "100-119", "a", "b2", "b10", "(unknown)"]


def test_differences_are_paired() -> None:
    probabilities, labels = predictions(400)
    said, groups = probabilities.argmax(1), np.arange(400)
    other = said.clone()
    other[:40] = (labels[:40] + 1) % 3  # wrong wherever the first ones may be right
    assert difference(said, said, labels, groups, 3, 200) == [0, 0]
    gap = 100 * (balanced_accuracy_score(labels, said) - balanced_accuracy_score(labels, other))
    found = difference(said, other, labels, groups, 3, 300)
    assert found is not None
    low, high = found
    assert low < gap < high
    alone = intervals(probabilities, labels, groups, 300)["balanced_accuracy"]
    assert high - low < alone[1] - alone[0]  # most images are the same to both
    sure = torch.nn.functional.one_hot(labels[:60], 3).float()
    certain = intervals(sure, labels[:60], np.arange(60), 100)["accuracy"]  # all right
    assert certain == [pytest.approx(100 * 0.025 ** (1 / 60), abs=1e-3), 100]
    assert difference(said, other, labels, np.zeros(400), 3, 100) is None
    assert intervals(probabilities, labels, np.zeros(400), 100) == {}


@pytest.mark.parametrize("level", ["image", "group"])
def test_all_parts_are_held_against_others(level: str) -> None:
    probabilities, labels = predictions(400)
    groups, domains = np.arange(400) // 2, ["x"] * 300 + ["y"] * 100
    labels = labels[::2].repeat_interleave(2)  # one label a group
    site = np.array(["a"] * 8 + ["b"] * 392)
    other = torch.nn.functional.one_hot((labels + (torch.arange(400) < 100)) % 3, 3).float()
    found = scores(
        *(probabilities, labels, NAMES, domains),
        groups=groups,
        columns={"site": site},
        aggregate=level == "group",
    )
    said = {"served": probabilities, "source": other}
    units = Units.of(level, labels, groups, domains, {"site": site}, said)
    held = held_against(found, units, ["source"], 200)
    assert "against" not in found
    assert held["balanced_accuracy"] == found["balanced_accuracy"]
    parts = {name: held["subgroups"]["site"][name] for name in "ab"}
    masks = {name: site == name for name in "ab"}
    for part, rows in ((held, site != ""), *((parts[name], masks[name]) for name in "ab")):
        against = part["against"]["source"]
        expected = 100 * balanced_accuracy_score(labels[rows], other.argmax(1)[rows])
        assert against["balanced_accuracy"] == pytest.approx(expected, abs=1e-3)
        gap = part["balanced_accuracy"] - expected
        assert against["difference"] == pytest.approx(gap, abs=2e-3)
        low, high = against["interval"]
        assert low < against["difference"] < high
    assert held["domains"]["y"]["against"]["source"]["balanced_accuracy"] == 100
    assert (parts["a"]["groups"], parts["a"]["few"]) == (4, True)
    assert "few" not in parts["b"]
    assert held_against({"alarms": 0}, units, ["source"], 200) == {"alarms": 0}


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
