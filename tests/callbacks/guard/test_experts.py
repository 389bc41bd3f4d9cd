"""Who is trusted how far, who serves, and who leads."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.experts import Experts, Found, hint_of, vote
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.settings import Tuned
from holdfast.tta.methods import Prediction

NAMES = ["source", "batch", "corrected"]
SOURCE = Reference(3 * torch.eye(3), torch.full((3, 3), 0.25))
TUNED = Tuned(floor=1e-9, looks=1, sharpness=2.0)


def experts(tuned: Tuned = TUNED, **more: Any) -> Experts:
    return Experts(3, tuned, **{"source": SOURCE, **more})


def weighed(*divergences: float, tuned: Tuned = TUNED, looks: int = 1, **more: Any) -> Experts:
    """After looks at which the candidates' divergences were these."""
    found, names = experts(tuned, **more), NAMES[: len(divergences)]
    for _ in range(looks):
        hear(found, {name: said(0.1) for name in names})
        found.looks -= 60 / 64
        found.weigh(64, {name: Found(far) for name, far in zip(names, divergences, strict=True)})
    return found


def hear(found: Experts, answers: Mapping[str, Prediction]) -> None:
    asked = found.asks(answers)
    found.hear(dict(zip(asked, read_back(asked.values()), strict=True)))


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
    thrice = weighed(0.1, 0.2, tuned=Tuned(floor=1e-9, looks=2, sharpness=2.0), looks=3)
    assert thrice.shares == pytest.approx({"source": 16 / 17, "batch": 1 / 17}), "of two at most"
    floored = weighed(0.0, 0.05, tuned=Tuned(looks=1, sharpness=2.0)).shares
    assert floored == pytest.approx({"source": 0.8, "batch": 0.2}), "below the floor is noise"


@pytest.mark.parametrize(
    ("divergences", "trusted"),
    [
        ((0.1, 0.3), {"source": 1.0}),  # 90 %
        ((0.1, 0.201), {"source": 1.0}),  # 80 %, from which on it serves alone
        ((0.1, 0.15), {"source": 9 / 13, "batch": 4 / 13}),
        ((0.1, 0.12, 1.0), {"source": 0.5902, "batch": 0.4098}),  # the third has hardly any
    ],
)
def test_one_alone_where_it_has_most_of_the_trust_and_nobody_with_hardly_any(
    divergences: tuple[float, ...], trusted: dict[str, float]
) -> None:
    found = weighed(*divergences, tuned=replace(TUNED, looks=2)).trusted
    assert found == pytest.approx(trusted, abs=1e-3)
    assert sum(found.values()) == pytest.approx(1)


def test_half_of_the_trust_is_enough_once_it_has_stopped_to_grow() -> None:
    assert weighed(0.1, 0.15, tuned=replace(TUNED, looks=1)).trusted == {"source": 1.0}
    undecided = weighed(0.1, 0.1, 0.1, tuned=replace(TUNED, looks=2))
    assert undecided.trusted == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    assert undecided.leads() == "none leads"


def test_where_all_are_as_good_for_good_the_model_goes_on_adapting() -> None:
    """As on the source's own domain, where to hedge to the end would win nothing."""
    alike = weighed(0.1, 0.11, 0.1, tuned=replace(TUNED, looks=2), looks=3)
    assert max(alike.shares.values()) < 0.5
    assert alike.leads() == "adapted leads"
    assert alike.trusted == {"corrected": 1.0}


@pytest.mark.parametrize(
    ("divergences", "leads"),
    [
        ((0.2, 0.1), "adapted leads"),
        ((0.1, 0.2), "source leads"),
        ((0.1, 0.1, 0.1), "adapted leads"),  # trust has stopped to grow after one look
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
    hear(alone, {"source": said(0.1)})
    assert (alone.working, alone.best_to_adapt()) == ("source", "source")
    own = experts()
    hear(own, {"source": said(0.1), "control": said(0.1)})
    assert own.working == "control"


def test_without_a_source_the_published_statistics_have_all_the_trust() -> None:
    found = weighed(0.0, 9.0, 0.0, source=None)
    assert found.trusted == {"batch": 1.0}
    assert found.leads() == "adapted leads"
    heard = experts(source=None)
    hear(heard, {"batch": said(5.0)})
    found_out = heard.found["batch"]
    assert (heard.looks * 64, found_out.divergence, found_out.impossible) == (60, 0, 0)
    assert 0 < found_out.information < 1, "what predictions tell of images needs no source"


def test_what_is_known_beforehand_counts_at_every_look() -> None:
    tuned = Tuned(floor=1e-9, looks=4, sharpness=2.0)
    found = weighed(0.1, 0.1, tuned=tuned, looks=3, hint={"source": math.log(2)}).shares
    assert found == pytest.approx({"source": 8 / 9, "batch": 1 / 9})


def test_what_a_site_knows_of_the_order_speaks_for_or_against_batch_statistics() -> None:
    usual, mixed, correlated = (hint_of(name) for name in ("unknown", "mixed", "correlated"))
    for home in ("batch", "control"):  # those that methods are published with
        assert correlated[home] < usual[home] == 0 < mixed[home]
    for hint in (usual, mixed, correlated):
        assert set(hint) == {"batch", "control"}
    guard = CollapseGuard("ab", GuardConfig(order="mixed"))
    assert guard.experts.hint == mixed
    # Where one class comes for a while, no likeness of its halves to two classes counts.
    found = weighed(0.2, 0.05, tuned=Tuned(), looks=8, hint=correlated)
    assert found.trusted == {"source": 1.0}
    assert weighed(0.2, 0.05, tuned=Tuned(), looks=8, hint=usual).trusted == {"batch": 1.0}


def test_bounds_push_out_what_is_impossible() -> None:
    bounds = torch.tensor([[0.0, 0.0, 0.0], [0.5, 1.0, 1.0]])
    free, bound = experts(), experts(bounds=bounds)
    answers = {"source": said(0.0, label=0), "batch": said(0.02, seed=1)}
    for found in (free, bound):
        hear(found, answers)
    first = answers["source"].logits.softmax(1).mean(0)[0].item()
    assert bound.found["source"].impossible == pytest.approx(first - 0.5, rel=1e-4)
    assert bound.found["batch"].impossible == pytest.approx(0.0)
    assert free.found["source"].impossible == 0
    odds = [found.shares["source"] / found.shares["batch"] for found in (free, bound)]
    lost = Tuned().impossible * (first - 0.5) * 60 / 64  # at a look of 64 images
    assert odds[1] / odds[0] == pytest.approx(math.exp(-lost), rel=1e-3)


def test_corrected_statistics_are_trusted_the_more_the_better_the_classes_are_known() -> None:
    def odds(*pairs: tuple[float, float]) -> float:
        bounds = None if not pairs else torch.tensor(pairs).T
        found = weighed(0.1, 0.1, 0.1, tuned=Tuned(impossible=0), bounds=bounds)
        assert found.shares == pytest.approx(dict.fromkeys(NAMES, 1 / 3)), "nobody heeds it"
        found.heeded = True
        shares = found.shares
        assert shares["source"] == pytest.approx(shares["batch"])
        return math.log(shares["corrected"] / shares["source"])

    assert odds() == odds(*[(0.0, 1.0)] * 3) == pytest.approx(0)
    assert odds((0.5, 0.5), (0.2, 0.2), (0.3, 0.3)) == pytest.approx(0.5)
    assert odds((0.4, 0.6), (0.1, 0.3), (0.2, 0.4)) == pytest.approx(0.35)
    assert odds((0.9, 1.0), (0.0, 0.1), (0.0, 0.1)) == pytest.approx(0.45)


def test_a_vote_by_hand() -> None:
    tuned = Tuned(floor=0.02, sharpness=2.0, impossible=10.0)
    found = Found(divergence=0.08, information=0.48, impossible=0.05)
    expected = 2 * math.log(0.5 / 0.1) - 10 * 0.05
    assert vote(found, tuned) == pytest.approx(expected)
    assert vote(found, tuned, 0.3) == pytest.approx(expected + 0.3)
    assert vote(Found(-1e-9, 0.18), tuned) == pytest.approx(2 * math.log(10))
    doubted = vote(Found(0.08, 0.4, doubted=True), Tuned(floor=0.02))
    assert doubted == pytest.approx(-2 * math.log(0.1) + 0.5 * 0.4), "of masks"


def test_who_gives_all_images_one_answer_is_not_trusted_however_near_it_is() -> None:
    # As recorded: a source under low contrast, and batch statistics, which were right.
    found = experts(Tuned(looks=1, sharpness=2.0))
    found.weigh(64, {"source": Found(0.41, 0.04), "batch": Found(0.77, 0.79)})
    assert found.leads() == "adapted leads"
    assert found.trusted == {"batch": 1.0}
    # One class alone, of which both tell little: the nearer one counts.
    found = experts(Tuned(looks=1, sharpness=2.0))
    found.weigh(64, {"source": Found(0.31, 0.11), "batch": Found(1.24, 0.22)})
    assert found.trusted == {"source": 1.0}


def test_trust_grows_by_images_and_not_by_batches() -> None:
    tuned = Tuned(floor=1e-9, looks=8, sharpness=2.0)
    whole, quarters = experts(tuned), experts(tuned)
    both = {"source": Found(0.1), "batch": Found(0.15)}
    whole.weigh(64, both)
    for _ in range(4):
        quarters.weigh(16, both)
    assert quarters.shares == pytest.approx(whole.shares)
    assert quarters.looks == whole.looks == 1


def test_a_divergence_that_is_no_number_is_as_far_as_can_be() -> None:
    found = experts()
    for _ in range(8):
        found.weigh(64, {"source": Found(math.nan, 0.9), "batch": Found(8.0, 0.1)})
    assert found.trusted == {"batch": 1.0}


def test_labels_outrank_the_evidence() -> None:
    found = weighed(0.01, 0.2, 0.05)
    assert found.trusted == {"source": 1.0}
    found.barred = frozenset({"source"})
    assert found.shares == pytest.approx({"batch": 1 / 17, "corrected": 16 / 17})
    assert found.trusted == {"corrected": 1.0}
    assert found.leads() == "adapted leads"
    found.barred = frozenset({"adapted"})
    assert found.leads() == "source leads", "updates wait where what they led to is worse"
    found.barred = frozenset(NAMES)
    assert found.shares.keys() == set(NAMES), "somebody has to serve"
    found.pinned, found.barred = "batch", frozenset()
    assert (found.trusted, found.leads()) == ({"batch": 1.0}, "source leads")
    found.pinned, found.working = "adapted", "corrected"
    assert (found.trusted, found.leads()) == ({"corrected": 1.0}, "adapted leads")


def test_what_is_heard_adds_up_and_ranks_candidates_by_how_far_they_are() -> None:
    found = experts(GuardConfig().tuned)
    for look in range(4):
        hear(found, {"source": said(1.0, look), "batch": said(0.0, look)})
        assert found.looks * 64 == 60 * (look + 1)
    assert found.trusted == {"batch": 1.0}
    assert found.found["batch"].divergence < 0.1 < found.found["source"].divergence


def test_a_candidate_that_is_not_heard_keeps_what_it_had() -> None:
    found = experts()
    for answers in ({"source": said(1.0)}, {"source": said(1.0), "batch": said(0.0)}):
        hear(found, answers)
    before = dict(found.found)
    hear(found, {"batch": said(0.5, seed=1)})
    assert found.found["source"] == before["source"]
    assert found.found["batch"].divergence > before["batch"].divergence


def test_a_divergence_that_is_no_number_gives_no_share_that_is_none() -> None:
    for bad in (math.inf, math.nan):
        assert weighed(bad, 0.2).trusted == {"batch": 1.0}
        assert weighed(0.2, bad).trusted == {"source": 1.0}


def test_state_goes_on_exactly() -> None:
    def look(found: Experts, seed: int) -> dict[str, float]:
        answers = {"source": said(0.3, seed), "batch": said(0.2, seed + 50, size=64)}
        hear(found, answers)
        return found.shares

    tuned = GuardConfig().tuned
    straight, halves = experts(tuned), experts(tuned)
    expected = [look(straight, seed) for seed in range(10)]
    found = [look(halves, seed) for seed in range(4)]
    halves.working, halves.pinned, halves.barred = "corrected", "batch", frozenset({"source"})
    taken_up = experts(tuned)
    taken_up.load_state_dict(halves.state_dict())
    assert (taken_up.pinned, taken_up.barred) == ("batch", frozenset({"source"}))
    assert taken_up.found == halves.found
    taken_up.barred = frozenset()
    assert [*found, *(look(taken_up, seed) for seed in range(4, 10))] == expected
    assert (taken_up.working, taken_up.looks) == ("corrected", 10.0)
    blank = experts(tuned)
    blank.load_state_dict(experts(tuned).state_dict())
    assert look(blank, 0) == expected[0]


def test_a_guard_that_is_taken_up_weighs_what_it_saw_against_a_source_that_the_module_brings() -> (
    None
):
    class Module:
        source_features = SOURCE.mean, SOURCE.var, None

        def pause(self, paused: bool) -> None:
            pass

    def look(guard: CollapseGuard, seed: int) -> dict[str, float]:
        hear(guard.experts, {"source": said(3.0, seed), "batch": said(0.1, seed)})
        return guard.experts.shares

    first, second = (CollapseGuard(["a", "b", "c"]) for _ in range(2))
    first.start(Module())
    look(first, 0)
    second.load_state_dict(first.state_dict())
    second.start(Module())
    assert look(first, 1) == look(second, 1)
