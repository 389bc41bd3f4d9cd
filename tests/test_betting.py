"""The paired test of labels: its level holds at every look, and it tells a difference in time."""

import math

import numpy as np
import pytest

from holdfast.tta.betting import ALONE, JOINS, Bet, PairedTest, settled

Numbers = np.ndarray


def said(
    rng: np.random.Generator, count: int, shares: list[float], gains: list[float], apart: float
) -> tuple[list[int], list[float]]:
    """Labels and differences of two models that are right on other images in a share ``apart`` of
    each class, the one by ``gains`` more often.
    """
    labels = rng.choice(len(shares), size=count, p=shares)
    more = (apart + np.array(gains)[labels]) / 2
    draw = rng.random(count)
    differences = np.where(draw < more, 1.0, np.where(draw < apart, -1.0, 0.0))
    return labels.tolist(), differences.tolist()


def first_look(test: PairedTest, labels: list[int], differences: list[float], level: float) -> int:
    """With how many labels the test tells that the one is better; 0: with none of them."""
    for number, (label, difference) in enumerate(zip(labels, differences, strict=True), 1):
        test.add(label, difference)
        if test.better.log_wealth >= math.log(1 / level):
            return number
    return 0


def test_a_bet_by_hand() -> None:
    once = settled([1.0], Bet())
    assert once.log_wealth == pytest.approx(math.log(1.25))  # it expects .05, with a square of .2
    bet = (0.99 * 0.5 + 1) / (0.99 * 2 + 1)
    assert settled([-0.5], once).log_wealth == pytest.approx(math.log(1.25 * (1 - bet / 2)))
    assert (
        settled([-1.0] * 9, Bet()).log_wealth == settled([-1.0], Bet()).log_wealth
    )  # bets no more


@pytest.mark.parametrize(
    ("shares", "gains"),
    [([0.5, 0.5], [0.0, 0.0]), ([0.9, 0.1], [0.2, -0.2]), ([0.6, 0.2, 0.2], [0.2, 0.0, -0.2])],
)
def test_false_alarms_are_as_rare_as_the_level_says(
    shares: list[float], gains: list[float]
) -> None:
    """Also where more images speak for the one model, but not more classes."""
    rng, level = np.random.default_rng(0), 0.05
    wrong = sum(
        first_look(PairedTest(len(shares)), *said(rng, 400, shares, gains, 0.3), level) > 0
        for _ in range(400)
    )
    assert wrong <= 400 * level


def test_a_biased_choice_of_labels_by_class_does_no_harm() -> None:
    """Pathology sees one class four times as often as the other, and later less often."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        early = said(rng, 200, [0.8, 0.2], [0.2, -0.2], 0.3)
        late = said(rng, 200, [0.2, 0.8], [0.2, -0.2], 0.3)
        test = PairedTest(2)
        wrong += first_look(test, early[0] + late[0], early[1] + late[1], 0.05) > 0
    assert wrong <= 10


@pytest.mark.parametrize(
    ("shares", "within"),
    [([0.5, 0.5], 400), ([0.25] * 4, 600), ([0.85, 0.15], 900)],
)
def test_ten_points_are_told(shares: list[float], within: int) -> None:
    """Median near 150, 300 and 400 labels, a margin of about two; rare classes set the pace."""
    rng = np.random.default_rng(0)
    looks = [
        first_look(
            PairedTest(len(shares)), *said(rng, within, shares, [0.1] * len(shares), 0.2), 0.05
        )
        for _ in range(50)
    ]
    assert sum(look > 0 for look in looks) >= 45
    assert np.median([look or math.inf for look in looks]) < within / 2


def test_what_became_better_is_told_soon() -> None:
    """A thousand labels that spoke for the other one do not outweigh it for as long again."""
    rng = np.random.default_rng(0)
    test = PairedTest(2)
    assert not first_look(test, *said(rng, 1000, [0.5, 0.5], [-0.1, -0.1], 0.2), 0.05)
    assert test.worse.log_wealth > math.log(20)
    assert 0 < first_look(test, *said(rng, 1000, [0.5, 0.5], [0.4, 0.4], 0.5), 0.05) < 200


def test_a_class_joins_when_it_has_shown_itself() -> None:
    test = PairedTest(3)
    for label in [0, 1] * 50:
        test.add(label, 1.0)
    before = test.better
    for _ in range(JOINS - 1):
        test.add(2, -1.0)
    assert test.better == before
    test.add(2, -1.0)
    assert test.better == Bet()  # of three classes nothing is known yet: all of two are used
    for label in [0, 1, 2] * 8:
        test.add(label, 1.0)
    assert test.labels == 100 + JOINS + 24
    assert test.better.log_wealth != 0.0


def test_one_class_beside_hardly_any_of_another_says_nothing() -> None:
    test = PairedTest(2)
    test.add(1, 1.0)
    for _ in range(5000):
        test.add(0, 1.0)
    assert test.better == Bet()
    assert len(test.state_dict()["waiting"][0]) == 1000


def test_it_goes_on_where_it_stood() -> None:
    labels, differences = said(np.random.default_rng(2), 300, [0.7, 0.3], [0.1, 0.1], 0.3)
    whole, first, second = PairedTest(2), PairedTest(2), PairedTest(2)
    for number, (label, difference) in enumerate(zip(labels, differences, strict=True)):
        whole.add(label, difference)
        if number == 150:
            second.load_state_dict(first.state_dict())
        (first if number < 150 else second).add(label, difference)
    assert second.state_dict() == whole.state_dict()


def test_a_stream_of_one_class_is_told_about_from_so_many_labels_on() -> None:
    test = PairedTest(3)
    for _ in range(ALONE - 1):
        test.add(1, 1.0)
    assert test.better == Bet(), "another class may come yet"
    test.add(1, 1.0)
    alone = settled([1.0] * ALONE, Bet())
    assert test.better == pytest.approx(alone), "the labels that waited count"
    assert test.better.log_wealth > math.log(4 / 0.05)
    test.add(0, -1.0)
    test.add(1, -1.0)
    assert test.better == pytest.approx(alone), "the question is no more of one class alone"
    for _ in range(JOINS - 1):
        test.add(0, -1.0)
    assert test.better == Bet(), "a class that joins changes the question"
    for _ in range(3):  # with the one that waits, a block: four of the common class to one
        test.add(1, -1.0)
    assert test.better == pytest.approx(settled([-1.0], Bet()))


def test_one_class_alone_has_the_same_level() -> None:
    rng, level = np.random.default_rng(2), 0.05
    wrong = sum(
        first_look(PairedTest(2), *said(rng, 400, [1.0, 0.0], [0.0, 0.0], 0.3), level) > 0
        for _ in range(400)
    )
    assert wrong <= 400 * level
    looks = [
        first_look(PairedTest(2), *said(rng, 900, [0.0, 1.0], [0.1, 0.1], 0.3), level)
        for _ in range(40)
    ]
    assert min(looks) >= ALONE
    assert float(np.median(looks)) < 300


def test_a_state_of_one_class_goes_on_exactly() -> None:
    labels, differences = said(np.random.default_rng(3), 80, [0.0, 1.0], [0.1, 0.1], 0.3)
    straight, halves = PairedTest(2), PairedTest(2)
    for number, (label, difference) in enumerate(zip(labels, differences, strict=True)):
        straight.add(label, difference)
        halves.add(label, difference)
        if number in (20, 31, 50):
            state = halves.state_dict()
            halves = PairedTest(2)
            halves.load_state_dict(state)
    assert halves.state_dict() == straight.state_dict()
