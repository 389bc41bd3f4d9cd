"""Evidence for a model: its parts by hand, its order, and what it makes of nothing."""

import math

import pytest
import torch
from torch import Tensor
from tta.evidence import MEMORY, Evidence, divergence_of, evidence_of, gathered, no_evidence

from tta.separation import class_moments, separation

MEAN, VAR = 3 * torch.eye(3), torch.ones(3, 3)


def batch(
    noise: float, seed: int = 0, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), size: int = 90
) -> tuple[Tensor, Tensor]:
    """Logits and features of a model whose classes lie at ``MEAN``, blurred by noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(shares), 90, True, generator=rng)
    features = MEAN[labels] + noise * torch.randn(90, 3, generator=rng)
    return 2 * features, features


def after(*batches: tuple[Tensor, Tensor]) -> Evidence:
    state = no_evidence(3, 3)
    for logits, features in batches:
        state = gathered(state, logits, features)
    return state


def test_one_batch_by_hand() -> None:
    logits, features = batch(0.5)
    state = after((logits, features))
    p = logits.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    information = -(p.mean(0) * p.mean(0).log()).sum() - entropy
    labels = logits.argmax(1)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    divergence = ((means - MEAN) ** 2 / (1 + 1e-6)).mean(1).mean()
    expected = (
        information / math.log(3)
        + 0.2 * (separation(features, labels, 3) + 0.01).log()
        - 0.4 * divergence
    )
    torch.testing.assert_close(evidence_of(state, MEAN, VAR), expected, atol=1e-5, rtol=0)
    alone = information / math.log(3) + 0.2 * (separation(features, labels, 3) + 0.01).log()
    torch.testing.assert_close(evidence_of(state), alone, atol=1e-5, rtol=0)


def test_one_image_out_of_all_bounds_does_not_count() -> None:
    clean = after(batch(0.5), batch(0.5, seed=1))
    for factor in (1e3, 1e25, float("inf")):
        logits, features = batch(0.5, seed=1)
        features[4] *= factor
        spoilt = after(batch(0.5), (logits, features))
        torch.testing.assert_close(
            evidence_of(spoilt, MEAN, VAR), evidence_of(clean, MEAN, VAR), atol=0.02, rtol=0
        )


def test_a_blurred_a_shifted_and_a_collapsed_model_have_less() -> None:
    good = evidence_of(after(batch(0.5)), MEAN, VAR)
    assert evidence_of(after(batch(2.0)), MEAN, VAR) < good
    logits, features = batch(0.5)
    assert evidence_of(after((logits, features + 2)), MEAN, VAR) < good
    assert evidence_of(after((logits + torch.tensor([9.0, 0, 0]), features)), MEAN, VAR) < good


def test_a_model_that_never_predicts_a_class_has_less() -> None:
    logits, features = batch(0.5)
    keep = logits.argmax(1) != 2
    missing = after((logits[keep], features[keep]))
    information = (
        evidence_of(missing)
        - 0.2 * (separation(features[keep], logits[keep].argmax(1), 3) + 0.01).log()
    )
    p = logits[keep].softmax(1)
    expected = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    torch.testing.assert_close(information, expected / math.log(3) - 0.5 / 3, atol=1e-5, rtol=0)


def test_each_class_remembers_its_own_last_samples() -> None:
    seen = [batch(0.5, seed) for seed in range(6)]
    stretch = [batch(0.5, 9, (1.0, 0.0, 0.0)) for _ in range(20)]
    state = after(*seen, *stretch)
    assert (state.moments.counts[1:] > 100).all()  # outlive a stretch without them
    assert state.moments.counts.max() <= MEMORY + 90


def test_nothing_one_class_one_sample_and_broken_rows_are_defined() -> None:
    assert evidence_of(no_evidence(3, 3), MEAN, VAR).isfinite()
    logits, features = batch(0.1, shares=(1.0, 0.0, 0.0))
    assert evidence_of(after((logits, features)), MEAN, VAR).isfinite()
    assert evidence_of(after((logits[:1], features[:1])), MEAN, VAR).isfinite()
    broken = logits.clone()
    broken[3] = math.nan
    kept = [i for i in range(len(logits)) if i != 3]
    torch.testing.assert_close(
        evidence_of(after((broken, features)), MEAN, VAR),
        evidence_of(after((logits[kept], features[kept])), MEAN, VAR),
    )
    untouched = no_evidence(3, 3)
    assert gathered(untouched, logits * math.nan, features) is untouched


def test_divergence_by_hand_and_where_no_class_has_enough() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0], [0.0, 6.0]])
    moments = class_moments(features, torch.tensor([0, 0, 1, 1]), 2)
    source = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    expected = ((2.0**2 + 0) / 2 / 4 + (0 + 1.0) / 2 / 4) / 2
    assert divergence_of(
        moments, source, torch.full((2, 2), 4.0), min_count=2
    ).item() == pytest.approx(expected, rel=1e-5)
    assert divergence_of(moments, source, torch.full((2, 2), 4.0), min_count=3).isnan()
