"""Networks that answer at each pixel: of any sides, window by window, and built again alike."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.networks import (
    MODELS,
    NETWORKS,
    DenseNetwork,
    create_network,
    network_from,
    sealed,
)
from holdfast.tta.normalization import is_norm
from holdfast.tta.soundness import _described
from holdfast.tta.windows import drawn, slide

DENSE = [kind for kind, architecture in NETWORKS.items() if architecture.dense]


def built(kind: str, size: tuple[int, ...], **options: Any) -> tuple[DenseNetwork, dict[str, Any]]:
    torch.manual_seed(0)
    network, description = create_network(
        kind, MODELS[kind](**options), num_classes=3, channels=2, size=size
    )
    assert isinstance(network, DenseNetwork)
    return network, description


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("kind", DENSE)
def test_networks_answer_at_each_pixel(kind: str, norm: str) -> None:
    width = {"width": 24} if kind == "swinunetr" else {"width": 8}
    network, description = built(kind, (32, 32), norm=norm, **width)
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = network(images(2, 2, 30, 27))  # no side is a multiple of a stride
    assert logits.shape == (2, 3, 30, 27)
    assert seen[0].shape == (2, network.head.in_channels, 30, 27)
    kinds = {type(module) for module in network.modules() if is_norm(module)}
    named = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "group": nn.GroupNorm}
    assert named[norm] in kinds
    assert kinds <= {named[norm], nn.LayerNorm}
    again = network_from(description)
    again.load_state_dict(network.state_dict())
    network.eval(), again.eval()
    assert torch.equal(again(images(1, 2, 32, 32)), network(images(1, 2, 32, 32)))


_SLOW = {"swinunetr": [pytest.mark.slow]}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=_SLOW.get(k, ())) for k in DENSE])
def test_volumes(kind: str) -> None:
    width = {"width": 12} if kind == "swinunetr" else {"width": 8}
    network, _ = built(kind, (32, 32, 32), **width)
    assert network.eval()(images(1, 2, 20, 32, 32)).shape == (1, 3, 20, 32, 32)


@pytest.mark.parametrize("kind", DENSE)
def test_each_layer_stands_once_in_a_network(kind: str) -> None:
    network, _ = built(kind, (32, 32))
    layers = [module for _, module in network.named_modules(remove_duplicate=False)]
    learned = [layer for layer in layers if list(layer.parameters(False))]
    assert len(learned) == len(set(learned))


def test_levels_of_dynunet_follow_from_the_sides() -> None:
    def strides(*size: int) -> tuple[int, ...]:
        return built("dynunet", size, width=8)[0].features.stride  # type: ignore[return-value]

    assert strides(96, 96) == (16, 16)  # 96, 48, 24, 12, 6
    assert strides(256, 64) == (32, 16)
    assert strides(16, 64, 64) == (4, 16, 16)
    assert strides(8, 8) == (4, 4)


def test_larger_images_are_seen_window_by_window() -> None:
    network, _ = built("basicunet", (32, 32), width=8, norm="instance")
    network.eval()
    whole = images(2, 2, 50, 40)
    found = network(whole)
    assert found.shape == (2, 3, 50, 40)
    # The corner is seen by one window alone, which says of it what it would say by itself.
    alone = network(whole[..., :32, :32])
    torch.testing.assert_close(found[..., :8, :8], alone[..., :8, :8])
    network.window = (50, 40)
    assert not torch.allclose(found, network(whole), atol=1e-3)


def test_what_does_not_look_around_is_the_same_in_windows() -> None:
    pixelwise = nn.Conv2d(2, 3, 1)
    whole = images(2, 2, 70, 40)
    torch.testing.assert_close(slide(pixelwise, whole, (32, 64), 0.5), pixelwise(whole))


def test_windows_are_drawn_by_seed_inside_the_image() -> None:
    whole = torch.arange(2 * 100.0).reshape(2, 1, 10, 10)
    first, again, other = (
        drawn(whole, (4, 20), 5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (10, 1, 4, 10)  # an axis shorter than the window is taken whole
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[:5] < 100).all()
    assert (first[5:] >= 100).all()
    assert drawn(whole, (10, 10), 5, torch.Generator()) is whole


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("basicunet", {"width": 12, "norm": "group"}, "multiple of 8"),
        ("basicunet", {"overlap": 1.0}, "below 1"),
        ("basicunet", {"window": [0, 8]}, "sides of at least 1"),
        ("swinunetr", {"width": 16}, "multiple of 12"),
    ],
)
def test_options_that_do_not_fit(kind: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        MODELS[kind](**options)


@pytest.mark.parametrize("kind", DENSE)
def test_what_a_checkpoint_says_of_a_network_can_be_built_without_memory(kind: str) -> None:
    width = 24 if kind == "swinunetr" else 8
    network, description = built(kind, (64, 64), width=width)
    empty = _described(sealed(network, description), 3, len(network.state_dict()))
    shapes = {name: value.shape for name, value in empty.state_dict().items()}
    assert shapes == {name: value.shape for name, value in network.state_dict().items()}
    assert all(value.is_meta for value in empty.parameters())
