"""Evidence for a model: its divergence by hand, what raises it, what does not count, and shares."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference, Seen, shares

MEAN, VAR = 3 * torch.eye(3), torch.full((3, 3), 0.25)
SOURCE = Reference(MEAN, VAR)
MEMORY, PRIOR = 128.0, 8.0


def batch(
    seed: int = 0,
    mix: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3),
    size: int = 90,
    noise: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Logits and features of a model whose classes look like the source's."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(mix), size, True, generator=rng)
    features = MEAN[labels] + noise * torch.randn(size, 3, generator=rng)
    return 2 * features, features


def after(
    *batches: tuple[Tensor, Tensor],
    memory: float = MEMORY,
    classes: int = 3,
    source: Reference | None = SOURCE,
) -> Seen:
    seen = Seen(classes, batches[0][1].shape[1], memory, PRIOR, source)
    for logits, features in batches:
        seen.take(logits.numpy(), features.numpy())
    return seen


def far(*batches: tuple[Tensor, Tensor], source: Reference | None = SOURCE) -> float:
    return after(*batches, source=source).divergence


def assert_same(seen: Seen, other: Seen) -> None:
    for value, same in zip(seen.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, same)
    assert seen.divergence == pytest.approx(other.divergence)


def test_one_batch_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0], [0.0, 6.0], [3.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    means, variances = (
        torch.tensor([[0.0, 0.0], [0.0, 4.0]]),
        torch.tensor([[4.0, 2.0], [1.0, 2.0]]),
    )
    answers = (torch.nn.functional.one_hot(labels, 2).float(), features)
    seen = after(answers, classes=2, source=Reference(means, variances))
    assert seen.counts.tolist() == [2, 3]
    sure = math.e / (1 + math.e)  # of what has a logit of 1 to 0
    summed = [2 * sure + 3 * (1 - sure), 3 * sure + 2 * (1 - sure)]
    assert seen.marginal.tolist() == pytest.approx(summed), "probabilities, not answers"
    entropy = -(sure * math.log(sure) + (1 - sure) * math.log(1 - sure))
    assert seen.entropy == pytest.approx(5 * entropy, rel=1e-5)
    mean = torch.tensor(summed) / 5
    gained = (torch.special.entr(mean).sum().item() - entropy) / math.log(2)
    assert seen.information == pytest.approx(gained, rel=1e-4)
    assert seen.mean == pytest.approx(np.array([[2.0, 1.0], [1.0, 5.0]]))
    least = 0.05 * torch.tensor([2.5, 2.0]) + 1e-6
    total = weights = 0.0
    for label, count in ((0, 2), (1, 3)):
        own = features[labels == label]
        weight = count / (count + 8.0)
        expected = variances[label] + least
        found = own.var(0, unbiased=False) + least
        drawn = torch.distributions.Normal(
            means[label] + weight * (own.mean(0) - means[label]),
            (weight * found + (1 - weight) * expected).sqrt(),
        )
        like = torch.distributions.Normal(means[label], expected.sqrt())
        total += torch.distributions.kl_divergence(drawn, like).mean().item()
        weights += weight
    assert seen.divergence == pytest.approx(total / weights, rel=1e-5)


def test_classes_count_alike_whatever_their_share() -> None:
    even, skewed = batch(1, size=3000), batch(1, (0.9, 0.05, 0.05), size=3000)
    shift = torch.tensor([0.4, 0.0, 0.0])
    assert far((even[0], even[1] + shift)) == pytest.approx(
        far((skewed[0], skewed[1] + shift)), rel=0.15
    )


def test_a_shifted_a_collapsed_and_a_blurred_model_are_further_away() -> None:
    logits, features = batch()
    own = far((logits, features))
    assert own < 0.05
    assert far((logits, features + 1)) > 5 * own
    assert far((logits + torch.tensor([99.0, 0, 0]), features)) > 5 * own
    blurred = MEAN[logits.argmax(1)] + 3 * (features - MEAN[logits.argmax(1)])
    assert far((logits, blurred)) > 5 * own
    together = torch.lerp(features, features.mean(0), 0.5)
    assert far((logits, together)) > 5 * own


def test_the_scale_of_features_changes_no_share() -> None:
    good, worse = batch(), (batch()[0], batch()[1] + 0.7)
    for scale in (1e-1, 1.0, 30.0):
        source = Reference(MEAN * scale, VAR * scale**2)
        votes = {
            name: -2 * math.log(far((logits, features * scale), source=source))
            for name, (logits, features) in {"source": good, "batch": worse}.items()
        }
        assert shares(votes, 1)["source"] == pytest.approx(
            shares({"source": -2 * math.log(far(good)), "batch": -2 * math.log(far(worse))}, 1)[
                "source"
            ],
            abs=2e-3,
        )


def test_a_feature_that_is_constant_at_the_source_has_a_scale_all_the_same() -> None:
    source = Reference(MEAN, VAR * torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 1, 1]]))
    assert far(batch(), source=source) < 2
    dead = Reference(MEAN, VAR * torch.tensor([1.0, 1.0, 0.0]))
    assert math.isfinite(far(batch(), source=dead))


def test_predictions_tell_of_images_where_they_are_sure_and_differ() -> None:
    def told(logits: Tensor) -> float:
        return after((logits, torch.zeros(len(logits), 3))).information

    even = torch.eye(3).repeat(30, 1)
    assert told(50 * even) == pytest.approx(1, abs=1e-4), "sure answers that are evenly spread"
    assert told(50 * even[:1].expand(90, 3)) == pytest.approx(0, abs=1e-4), "one answer for all"
    assert told(0 * even) == pytest.approx(0, abs=1e-4), "no answer is sure"
    two = 50 * even[[0, 1]].repeat(45, 1)
    assert told(two) == pytest.approx(math.log(2) / math.log(3), abs=1e-4)
    assert 0 < told(even) < told(2 * even) < told(4 * even)


def test_what_predictions_tell_is_of_the_last_images() -> None:
    even, features = 50 * torch.eye(3).repeat(30, 1), torch.zeros(90, 3)
    stretch = [(even[:1].expand(90, 3), features)] * 40
    assert after((even, features), *stretch).information < 0.05
    state = after(*[(even, features)] * 40)
    assert state.marginal.sum() <= 3 * MEMORY + 90.01  # of single precision
    soft = after(*[(even / 50, features)] * 40)
    fresh = after((even / 50, features))
    assert soft.information == pytest.approx(fresh.information, abs=1e-4)


def test_each_class_remembers_its_own_last_images() -> None:
    seen = [batch(seed) for seed in range(3)]  # fewer of each class than it remembers
    stretch = [batch(9, (1.0, 0.0, 0.0)) for _ in range(20)]
    before, state = after(*seen), after(*seen, *stretch)
    np.testing.assert_array_equal(state.counts[1:], before.counts[1:])  # outlive a stretch without
    np.testing.assert_array_equal(state.mean[1:], before.mean[1:])
    assert state.counts[0] <= MEMORY + 90
    moved = [(logits, features + 5) for logits, features in stretch]
    assert after(*seen, *moved).mean[0, 1] == pytest.approx(5, abs=0.2)
    assert state.marginal.sum() <= 3 * MEMORY + 90.01  # of single precision
    assert state.marginal[0] / state.marginal.sum() > 0.95


def test_a_class_hardly_seen_says_hardly_anything() -> None:
    rare = (torch.eye(3)[[0]], MEAN[[0]] + 3)
    common = (torch.eye(3)[[0] * 90], MEAN[[0] * 90] + 3)
    assert far(rare) < 0.15 * far(common)  # 1 / (1 + prior), and what its variance adds


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_broken_and_outlying_rows_do_not_count(bad: float) -> None:
    logits, features = batch(1)
    kept = [row for row in range(len(logits)) if row not in (3, 7)]
    expected = after(batch(), (logits[kept], features[kept]))
    spoilt_logits, spoilt = logits.clone(), features.clone()
    spoilt[3] = bad
    spoilt[7] = features[7] * 1e4
    spoilt_logits[3] = bad
    assert_same(after(batch(), (spoilt_logits, spoilt)), expected)


def test_broken_logits_alone_do_not_count_either() -> None:
    logits, features = batch(1)
    kept = [row for row in range(len(logits)) if row != 5]
    expected = after((logits[kept], features[kept]))
    logits = logits.clone()
    logits[5, 1] = math.nan
    assert_same(after((logits, features)), expected)


def test_nothing_one_image_one_class_and_nothing_sound_are_defined() -> None:
    nothing = Seen(3, 3, MEMORY, PRIOR, SOURCE)
    assert (nothing.divergence, nothing.information) == (0, 0)
    assert Seen(1, 3, MEMORY, PRIOR).information == 0
    logits, features = batch()
    assert math.isfinite(far((logits[:1], features[:1])))
    assert math.isfinite(far(batch(0, (1.0, 0.0, 0.0))))
    state = after((logits, features))
    assert_same(after((logits, features), (logits * math.nan, features)), state)
    assert math.isfinite(far((logits[:0], features[:0]))), "a batch of no image"


def test_a_class_that_does_not_come_is_held_against_the_source_as_if_it_had() -> None:
    """What is measured of the classes of a batch alone is what all together would give."""
    seen = after(*[batch(seed) for seed in range(20)], batch(9, (1.0, 0.0, 0.0)))
    again = Seen(3, 3, MEMORY, PRIOR, SOURCE)
    again.load_state_dict(seen.state_dict())  # all are held against the source
    assert seen.divergence == again.divergence


def test_a_thousand_classes_cost_what_their_images_do() -> None:
    """Of the wide table of classes a batch touches its own rows alone."""
    classes, width = 1000, 64
    rng = np.random.default_rng(0)
    source = Reference(rng.normal(size=(classes, width)), np.ones((classes, width)))
    seen = Seen(classes, width, MEMORY, PRIOR, source)
    labels = np.repeat([3, 500], 4)
    logits = np.eye(classes, dtype=np.float32)[labels] * 9
    seen.mean[[7, 900]] = math.nan  # would spread to whatever read it
    seen.take(logits, source.mean[labels])
    assert np.flatnonzero(seen.counts).tolist() == [3, 500]
    assert math.isfinite(seen.divergence)


def test_shares_go_by_ratio_and_grow_with_looks() -> None:
    votes = {"source": -2 * math.log(0.1), "batch": -2 * math.log(0.2)}
    assert shares(votes, 1) == pytest.approx({"source": 0.8, "batch": 0.2})
    assert shares(votes, 2) == pytest.approx({"source": 16 / 17, "batch": 1 / 17})
    scaled = {name: vote - 2 * math.log(1000) for name, vote in votes.items()}
    assert shares(scaled, 1) == pytest.approx(shares(votes, 1))
    assert shares({"source": 3000.0, "batch": -3000.0}, 8) == {"source": 1.0, "batch": 0.0}
    assert shares({"source": -7.0}, 4) == {"source": 1.0}


@pytest.mark.parametrize(
    ("marginal", "low", "high", "expected"),
    [
        ([80, 20], [0.0, 0.0], [1.0, 1.0], 0.0),
        ([80, 20], [0.0, 0.0], [0.5, 1.0], 0.3),
        ([80, 20], [0.0, 0.4], [1.0, 1.0], 0.2),
        ([80, 20], [0.0, 0.4], [0.5, 1.0], 0.3),
        ([100, 0], [0.0, 0.01], [1.0, 0.05], 0.01),
        ([0, 0], [0.5, 0.5], [0.5, 0.5], 0.0),
        ([6, 3, 1], [0.0, 0.0, 0.3], [0.3, 0.3, 1.0], 0.3),
    ],
)
def test_answers_outside_the_bounds_by_hand(
    marginal: list[float], low: list[float], high: list[float], expected: float
) -> None:
    seen = Seen(len(marginal), 2, MEMORY, PRIOR)
    seen.marginal = np.array(marginal, float)
    assert seen.outside(np.array(low), np.array(high)) == pytest.approx(expected, abs=1e-6)
