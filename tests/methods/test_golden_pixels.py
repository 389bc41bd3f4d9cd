"""Methods of segmentation against what the released implementations returned, as
``test_golden.py`` does it for others.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.methods import Method, create_method
from holdfast.tta.methods.grata import GraTa
from holdfast.tta.networks import MODELS, create_network
from tests.conftest import golden

#: Methods that were published for segmentation, each with vectors from its repository.
OF_PIXELS = {"intent", "grata", "adami", "vptta", "sictta"}
FILES = tuple(f"{name}_pixels" for name in sorted(OF_PIXELS))


def network(channels: int = 1) -> nn.Module:
    """With one logit a pixel, as in their own binary networks."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Conv2d(6, 1, 1),
    )


class Halves(nn.Module):
    """A small U-Net: a fine map, a coarse one of half the sides, and both decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _block(1, 6), _block(6, 8)
        self.third, self.head = _block(14, 6), nn.Conv2d(6, 2, 1)

    def fine(self, images: Tensor) -> Tensor:
        return self.first(images)

    def coarse(self, fine: Tensor) -> Tensor:
        return self.second(F.max_pool2d(fine, 2))

    def decoded(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.head(self.third(torch.cat([fine, F.interpolate(coarse, scale_factor=2)], 1)))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        return self.decoded(fine, self.coarse(fine))


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
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
    model = Halves() if made.get("network") == "halves" else network(made.get("channels", 1))
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
    if "memory/maps" in expected:
        remembered = torch.from_numpy(expected["memory/maps"])
        torch.testing.assert_close(method.memory["maps"], remembered, atol=1e-4, rtol=0)
    if method.adapted:  # a stream that moved nothing shows nothing
        moved = [(p - method.source_values[name]).abs().max() for name, p in method.adapted.items()]
        assert max(moved) > 0.01


def test_vptta_outlives_images_without_any_variance() -> None:
    method = create_method("vptta", network(), num_classes=2, task="segmentation")
    black = torch.zeros(1, 1, 16, 16)
    assert all(torch.isfinite(method(images)).all() for images in (black, torch.rand(2, 1, 16, 16)))


@pytest.mark.parametrize("kind", ["basicunet", "dynunet", "segresnet"])
def test_sictta_finds_the_bottleneck_of_monais_networks(kind: str) -> None:
    torch.manual_seed(0)
    options = MODELS[kind](width=8, norm="batch")
    model, _ = create_network(kind, options, num_classes=2, channels=1, size=(32, 32))
    method = create_method("sictta", model.eval(), num_classes=2, task="segmentation")
    images = torch.rand(6, 1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    source = [method.source(one).served for one in images]
    assert torch.equal(method(images[0]), source[0])  # nothing is remembered yet
    assert len(method.memory["maps"]) == 1
    left = [method(one) for one in images[1:]]
    assert all(not torch.equal(one, plain) for one, plain in zip(left, source[1:], strict=True))
    large = torch.rand(1, 1, 48, 40)  # seen in windows
    assert torch.equal(method(large), method.source(large).served)
    assert method.memory["images"].shape[1:] == images.shape[2:]


def test_sictta_begins_anew_with_images_of_other_sides() -> None:
    method = create_method("sictta", Halves().eval(), num_classes=2, task="segmentation")
    for side in (16, 16, 20):
        method(torch.rand(1, 1, side, side))
    assert method.memory["images"].shape == (1, 1, 20, 20)
