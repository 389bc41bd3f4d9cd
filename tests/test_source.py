"""What train.py writes of the source, against plain computations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from holdfast.programs import adapt
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.networks import MODELS, Network, create_network
from holdfast.tta.objectives import entropy
from holdfast.tta.selection import norm_affine
from holdfast.tta.source import Evaluation, fisher_information, fit_temperature, source_statistics
from tests.conftest import QUICK


def network() -> Network:
    torch.manual_seed(0)
    return create_network("compact", MODELS["compact"](), num_classes=3, channels=1, size=(16, 16))[
        0
    ].eval()


def batch(count: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(count)
    return {
        "image": torch.rand(count, 1, 16, 16, generator=rng),
        "label": torch.zeros(count, dtype=torch.long),
    }


def test_the_fisher_information_is_the_mean_squared_gradient_over_batches_of_64() -> None:
    found = fisher_information(network(), [batch(80), batch(1)], 3)
    assert found is not None
    twin = network()
    assert found.keys() == norm_affine(twin).keys()
    twin.train()
    expected = {name: torch.zeros_like(p) for name, p in norm_affine(twin).items()}
    for part in batch(80)["image"].split(64):
        twin.zero_grad()
        logits = twin(part)
        F.cross_entropy(logits, logits.argmax(1)).backward()  # type: ignore[no-untyped-call]
        for name, p in norm_affine(twin).items():
            assert p.grad is not None
            expected[name] += p.grad.square() / 2
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-2, atol=1e-5)


def test_no_image_no_fisher_information() -> None:
    assert fisher_information(network(), [], 3) is None


def test_statistics_of_the_source() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, features = torch.randn(60, 3, generator=rng), torch.randn(60, 5, generator=rng)
    labels = torch.arange(60) % 2  # one class has no image
    found = source_statistics(
        Evaluation(logits, features, labels), Evaluation(logits, features, labels), 3
    )
    np.testing.assert_allclose(found["prevalence"], [0.5, 0.5, 0])
    np.testing.assert_allclose(found["feature_mean"][1], features[1::2].numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(found["feature_var"][1], features[1::2].numpy().var(0), atol=1e-6)
    assert not found["feature_mean"][2].any()
    np.testing.assert_allclose(
        found["entropy_quantiles"], np.quantile(entropy(logits), np.linspace(0, 1, 101)), atol=1e-6
    )
    assert found["separation"] > 0


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_undoes_a_scaling(temperature: float) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20000, 3, generator=rng)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_checkpoint_carries_what_methods_ask_for(source: Any) -> None:
    checkpoint = SourceCheckpoint.load(source)
    adapted = norm_affine(checkpoint.build())
    assert checkpoint.fisher is not None
    assert {name: value.shape for name, value in checkpoint.fisher.items()} == {
        name: p.shape for name, p in adapted.items()
    }
    assert all(
        value.isfinite().all() and (value >= 0).all() for value in checkpoint.fisher.values()
    )
    assert any(value.any() for value in checkpoint.fisher.values())


def test_a_source_without_fisher_information_names_the_option(
    source: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(SourceCheckpoint.load(source), fisher=None).save(tmp_path / "source.ckpt")
    assert adapt.main([f"source={tmp_path}", f"output={tmp_path}", "method=eata", *QUICK]) == 2
    assert "train.py fisher_images=2000 writes it" in capsys.readouterr().err
