"""Who is trusted how far, who serves, and who leads."""

import math
from typing import Any

import pytest
import torch

from callbacks import GuardConfig
from callbacks.guard.evidence import Reference
from callbacks.guard.experts import Experts
from callbacks.settings import Tuned
from tta.methods import Prediction

NAMES = ["source", "batch", "corrected"]
SOURCE = Reference(3 * torch.eye(3), torch.full((3, 3), 0.25))
TUNED = Tuned(floor=0.0, looks=1)


def experts(tuned: Tuned = TUNED, **more: Any) -> Experts:
    return Experts(3, tuned, **{"source": SOURCE, **more})


def weighed(*divergences: float, tuned: Tuned = TUNED, looks: int = 1, **more: Any) -> Experts:
    """After looks at which the candidates' divergences were these."""
    found, names = experts(tuned, **more), NAMES[: len(divergences)]
    for _ in range(looks):
        found.weigh(names, [64, *(number for far in divergences for number in (far, 0.0))])
    return found


def said(shift: float, seed: int = 0, label: int | None = None, size: int = 60) -> Prediction:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (size,), generator=rng)
    if label is not None:
        labels = torch.full((size,), label)
    features = 3 * torch.eye(3)[labels] + 0.5 * torch.randn(size, 3, generator=rng)
    return Prediction(2 * features, features + shift)


def test_nothing_is_known_before_the_first_look() -> None:
    blank = experts()
    assert (blank.shares, blank.trusted, blank.working) == ({}, {}, None)
    assert blank.best_to_adapt() is None
    assert blank.leads() == "adapted leads"


def test_trust_goes_by_the_ratio_of_divergences_and_grows_with_looks() -> None:
    assert weighed(0.1, 0.2).shares == pytest.approx({"source": 0.8, "batch": 0.2})
    thrice = weighed(0.1, 0.2, tuned=Tuned(floor=0.0, looks=2), looks=3)
    assert thrice.shares == pytest.approx({"source": 16 / 17, "batch": 1 / 17}), "of two at most"
    floored = weighed(0.0, 0.02, tuned=Tuned(looks=1)).shares
    assert floored == pytest.approx({"source": 0.8, "batch": 0.2}), "below the floor is noise"


@pytest.mark.parametrize(
    ("divergences", "trusted"),
    [
        ((0.1, 0.3), {"source": 1.0}),  # 90 %
        ((0.1, 0.2), {"source": 1.0}),  # 80 %, from which on it serves alone
        ((0.1, 0.15), {"source": 9 / 13, "batch": 4 / 13}),
        ((0.1, 0.12, 1.0), {"source": 0.5902, "batch": 0.4098}),  # the third has hardly any
    ],
)
def test_one_alone_where_it_has_most_of_the_trust_and_nobody_with_hardly_any(
    divergences: tuple[float, ...], trusted: dict[str, float]
) -> None:
    found = weighed(*divergences).trusted
    assert found == pytest.approx(trusted, abs=1e-3)
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("divergences", "leads"),
    [
        ((0.2, 0.1), "adapted leads"),
        ((0.1, 0.2), "source leads"),
        ((0.1, 0.1, 0.1), "none leads"),
        ((0.1, 0.1), "source leads"),  # half of the trust is enough; who comes first has it
        ((0.3, 0.3, 0.1), "adapted leads"),
        ((0.1,), "adapted leads"),  # no choice
    ],
)
def test_who_leads(divergences: tuple[float, ...], leads: str) -> None:
    assert weighed(*divergences).leads() == leads


def test_a_model_adapts_under_the_best_statistics_but_never_under_the_sources() -> None:
    found = weighed(0.01, 0.2, 0.1)
    assert found.best_to_adapt() == "corrected"
    assert found.working == "batch", "as published, until somebody changes it"
    alone = experts()
    alone.weigh(["source"], [64, 0.1, 0.0])
    assert (alone.working, alone.best_to_adapt()) == ("source", "source")
    own = experts()
    own.weigh(["source", "control"], [64, 0.1, 0.0, 0.1, 0.0])
    assert own.working == "control"


def test_without_a_source_the_published_statistics_have_all_the_trust() -> None:
    found = weighed(0.0, 9.0, 0.0, source=None)
    assert found.trusted == {"batch": 1.0}
    assert found.leads() == "adapted leads"
    heard = experts(source=None)
    assert heard.hear({"batch": said(5.0)}).tolist() == [9.0, 0.0, 0.0]


def test_offsets_count_at_every_look() -> None:
    tuned = Tuned(floor=0.0, looks=4)
    found = weighed(0.1, 0.1, tuned=tuned, looks=3, offsets={"source": math.log(2)}).shares
    assert found == pytest.approx({"source": 8 / 9, "batch": 1 / 9})


def test_bounds_push_out_what_is_impossible() -> None:
    bounds = torch.tensor([[0.0, 0.0, 0.0], [0.5, 1.0, 1.0]])
    free, bound = experts(), experts(bounds=bounds)
    answers = {"source": said(0.0, label=0), "batch": said(0.02, seed=1)}
    for found in (free, bound):
        found.weigh(["source", "batch"], found.hear(answers).tolist())
    assert bound.impossible["source"] == pytest.approx(0.5)
    assert bound.impossible["batch"] == pytest.approx(0.0)
    odds = [found.shares["source"] / found.shares["batch"] for found in (free, bound)]
    assert odds[1] / odds[0] == pytest.approx(math.exp(-10 * 0.5), rel=1e-4)


def test_what_is_heard_adds_up_and_ranks_candidates_by_how_far_they_are() -> None:
    found = experts(GuardConfig().tuned)
    for look in range(4):
        numbers = found.hear({"source": said(1.0, look), "batch": said(0.0, look)})
        assert numbers.shape == (5,)
        found.weigh(["source", "batch"], numbers.tolist())
    assert found.trusted == {"batch": 1.0}
    assert found.divergences["batch"] < 0.1 < found.divergences["source"]


def test_a_candidate_that_is_not_heard_keeps_what_it_had() -> None:
    found = weighed(0.1, 0.2)
    found.weigh(["batch"], [64, 0.1, 0.0])
    assert found.divergences == {"source": 0.1, "batch": 0.1}


def test_a_divergence_that_is_no_number_gives_no_share_that_is_none() -> None:
    found = weighed(math.inf, 0.2)
    assert found.trusted == {"batch": 1.0}


def test_state_goes_on_exactly() -> None:
    def look(found: Experts, seed: int) -> dict[str, float]:
        answers = {"source": said(0.3, seed), "batch": said(0.2, seed + 50, size=64)}
        found.weigh(list(answers), found.hear(answers).tolist())
        return found.shares

    tuned = GuardConfig().tuned
    straight, halves = experts(tuned), experts(tuned)
    expected = [look(straight, seed) for seed in range(10)]
    found = [look(halves, seed) for seed in range(4)]
    halves.working = "corrected"
    taken_up = experts(tuned)
    taken_up.load_state_dict(halves.state_dict())
    assert [*found, *(look(taken_up, seed) for seed in range(4, 10))] == expected
    assert (taken_up.working, taken_up.looks) == ("corrected", 10)
    blank = experts(tuned)
    blank.load_state_dict(experts(tuned).state_dict())
    assert look(blank, 0) == expected[0]
