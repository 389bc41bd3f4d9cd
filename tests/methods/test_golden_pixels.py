"""Methods of segmentation against what the released implementations returned, as
``test_golden.py`` does it for others.
"""

import json

import pytest
import torch
from torch import Tensor, nn

from holdfast.tta.methods import Method, create_method
from holdfast.tta.methods.grata import GraTa
from tests.conftest import golden

#: Methods that were published for segmentation, each with vectors from its repository.
OF_PIXELS = {"intent", "grata", "adami", "vptta"}
FILES = tuple(f"{name}_pixels" for name in sorted(OF_PIXELS))


def network(channels: int = 1) -> nn.Module:
    """With one logit a pixel, as in their own binary networks."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Conv2d(6, 1, 1),
    )


class AsReleased(GraTa):
    """With the entropy that GraTa's code has, without the background's term."""

    def uncertainty(self, logits: Tensor) -> Tensor:
        p = logits.softmax(1)[:, 1]
        return -p * (p + 1e-6).log()


def created(file: str) -> tuple[Method, Tensor, Tensor]:
    """The method, its images, and the foreground's probabilities that its code returned."""
    expected = golden(file)
    made = json.loads(str(expected["meta"]))
    model = network(made.get("channels", 1))
    model.load_state_dict(
        {name[6:]: torch.from_numpy(v) for name, v in expected.items() if name[:6] == "model/"}
    )
    kind = AsReleased if file == "grata_pixels" else made["method"]
    options = made["hyperparameters"]
    method = create_method(kind, model, num_classes=2, task="segmentation", **options)
    images, served = (torch.from_numpy(expected[key]) for key in ("images", "probabilities"))
    return method, images, served


@pytest.mark.parametrize("file", FILES)
def test_a_stream_of_images_equals_the_released_implementation(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.tta.methods.grata.random_style", lambda images, *_: 1.3 * images)
    method, images, served = created(file)
    for batch, probabilities in zip(images, served, strict=True):
        left = method(batch).softmax(1)[:, 1:]
        torch.testing.assert_close(left, probabilities, atol=1e-4, rtol=0)
    state, expected = method.model.state_dict(), golden(file)
    for key in (key for key in expected if key.startswith("param/")):
        wanted = torch.from_numpy(expected[key])
        torch.testing.assert_close(state[key[6:]], wanted, atol=1e-4, rtol=0)
    if "memory/prompts" in expected:
        remembered = torch.from_numpy(expected["memory/prompts"])
        torch.testing.assert_close(method.memory["prompts"], remembered, atol=1e-4, rtol=0)
    if method.adapted:  # a stream that moved nothing shows nothing
        moved = [(p - method.source_values[name]).abs().max() for name, p in method.adapted.items()]
        assert max(moved) > 0.01


def test_vptta_outlives_images_without_any_variance() -> None:
    method = create_method("vptta", network(), num_classes=2, task="segmentation")
    black = torch.zeros(1, 1, 16, 16)
    assert all(torch.isfinite(method(images)).all() for images in (black, torch.rand(2, 1, 16, 16)))
