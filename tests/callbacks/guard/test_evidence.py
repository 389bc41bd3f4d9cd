"""Evidence for a model: its divergence by hand, what raises it, what does not count, and shares."""

import math

import pytest
import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import (
    Reference,
    Seen,
    divergence,
    information,
    nothing_seen,
    outside,
    seen_with,
    shares,
)

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


def after(*batches: tuple[Tensor, Tensor], memory: float = MEMORY, classes: int = 3) -> Seen:
    state = nothing_seen(classes, batches[0][1].shape[1])
    for logits, features in batches:
        state = seen_with(state, logits, features, memory)
    return state


def far(*batches: tuple[Tensor, Tensor]) -> float:
    return divergence(after(*batches), SOURCE, PRIOR).item()


def test_one_batch_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0], [0.0, 6.0], [3.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    seen = after((torch.nn.functional.one_hot(labels, 2).float(), features), classes=2)
    assert seen.counts.tolist() == [2, 3]
    sure = math.e / (1 + math.e)  # of what has a logit of 1 to 0
    summed = [2 * sure + 3 * (1 - sure), 3 * sure + 2 * (1 - sure)]
    assert seen.marginal.tolist() == pytest.approx(summed), "probabilities, not answers"
    entropy = -(sure * math.log(sure) + (1 - sure) * math.log(1 - sure))
    assert seen.entropy.item() == pytest.approx(5 * entropy, rel=1e-5)
    mean = torch.tensor(summed) / 5
    gained = (torch.special.entr(mean).sum().item() - entropy) / math.log(2)
    assert information(seen).item() == pytest.approx(gained, rel=1e-4)
    torch.testing.assert_close(seen.mean, torch.tensor([[2.0, 1.0], [1.0, 5.0]]))
    source = Reference(
        torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.tensor([[4.0, 2.0], [1.0, 2.0]])
    )
    least = 0.05 * torch.tensor([2.5, 2.0]) + 1e-6
    total = weights = 0.0
    for label, count in ((0, 2), (1, 3)):
        own = features[labels == label]
        weight = count / (count + 8.0)
        expected = source.var[label] + least
        found = own.var(0, unbiased=False) + least
        drawn = torch.distributions.Normal(
            source.mean[label] + weight * (own.mean(0) - source.mean[label]),
            (weight * found + (1 - weight) * expected).sqrt(),
        )
        like = torch.distributions.Normal(source.mean[label], expected.sqrt())
        total += torch.distributions.kl_divergence(drawn, like).mean().item()
        weights += weight
    assert divergence(seen, source, 8.0).item() == pytest.approx(total / weights, rel=1e-5)


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
            name: -2 * divergence(after((logits, features * scale)), source, PRIOR).log().item()
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
    assert divergence(after(batch()), source, PRIOR).item() < 2
    dead = Reference(MEAN, VAR * torch.tensor([1.0, 1.0, 0.0]))
    assert divergence(after(batch()), dead, PRIOR).isfinite()


def test_predictions_tell_of_images_where_they_are_sure_and_differ() -> None:
    def told(logits: Tensor) -> float:
        return information(after((logits, torch.zeros(len(logits), 3)))).item()

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
    assert information(after((even, features), *stretch)).item() < 0.05
    state = after(*[(even, features)] * 40)
    assert state.marginal.sum().item() <= 3 * MEMORY + 90.01  # of single precision
    soft = after(*[(even / 50, features)] * 40)
    fresh = after((even / 50, features))
    assert information(soft).item() == pytest.approx(information(fresh).item(), abs=1e-4)


def test_each_class_remembers_its_own_last_images() -> None:
    seen = [batch(seed) for seed in range(3)]  # fewer of each class than it remembers
    stretch = [batch(9, (1.0, 0.0, 0.0)) for _ in range(20)]
    before, state = after(*seen), after(*seen, *stretch)
    torch.testing.assert_close(state.counts[1:], before.counts[1:])  # outlive a stretch without
    torch.testing.assert_close(state.mean[1:], before.mean[1:])
    assert state.counts[0] <= MEMORY + 90
    moved = [(logits, features + 5) for logits, features in stretch]
    assert after(*seen, *moved).mean[0, 1].item() == pytest.approx(5, abs=0.2)
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
    for value, same in zip(after(batch(), (spoilt_logits, spoilt)), expected, strict=True):
        torch.testing.assert_close(value, same)


def test_broken_logits_alone_do_not_count_either() -> None:
    logits, features = batch(1)
    kept = [row for row in range(len(logits)) if row != 5]
    expected = after((logits[kept], features[kept]))
    logits = logits.clone()
    logits[5, 1] = math.nan
    for value, same in zip(after((logits, features)), expected, strict=True):
        torch.testing.assert_close(value, same)


def test_nothing_one_image_one_class_and_nothing_sound_are_defined() -> None:
    assert divergence(nothing_seen(3, 3), SOURCE, PRIOR).item() == 0
    assert information(nothing_seen(3, 3)).item() == 0
    assert information(nothing_seen(1, 3)).item() == 0
    logits, features = batch()
    assert math.isfinite(far((logits[:1], features[:1])))
    assert math.isfinite(far(batch(0, (1.0, 0.0, 0.0))))
    state = after((logits, features))
    for value, same in zip(seen_with(state, logits * math.nan, features, 1e9), state, strict=True):
        torch.testing.assert_close(value, same)
    assert math.isfinite(far((logits[:0], features[:0]))), "a batch of no image"


def test_nothing_is_read_back() -> None:
    meta = nothing_seen(3, 3, "meta")
    logits, features = (value.to("meta") for value in batch())
    state = seen_with(meta, logits, features, MEMORY)  # a read-back has no value here
    source = Reference(MEAN.to("meta"), VAR.to("meta"))
    assert divergence(state, source, PRIOR).is_meta
    assert information(state).is_meta
    assert outside(state, torch.zeros(3, device="meta"), torch.ones(3, device="meta")).is_meta


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
    seen = nothing_seen(len(marginal), 2)._replace(marginal=torch.tensor(marginal).float())
    found = outside(seen, torch.tensor(low), torch.tensor(high)).item()
    assert found == pytest.approx(expected, abs=1e-6)
