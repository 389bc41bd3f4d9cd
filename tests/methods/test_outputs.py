"""Networks whose answers are not a tensor of C logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS, create_method
from holdfast.tta.outputs import as_logits
from tests.conftest import small_network
from tests.methods.test_methods import OPEN, facts, images


def one_logit() -> nn.Sequential:
    torch.manual_seed(0)
    network = small_network(classes=1).eval()
    with torch.no_grad():  # so that it tells half of the images from the others
        network[8].bias.sub_(network(images()).median())
    return network


def two_logits(network: nn.Sequential) -> nn.Sequential:
    """The same network with a head that says 0 and its logit."""
    twin = small_network(classes=2)
    state = network.state_dict()
    for name in ("8.weight", "8.bias"):
        state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize("name", METHODS)
def test_one_logit_is_two_classes(name: str) -> None:
    network = one_logit()
    twin = two_logits(network)
    options = {**facts(name, network, 2), **OPEN.get(name, {})}
    if "fisher" in options:
        options["fisher"] = {key: torch.ones_like(p) for key, p in twin.named_parameters()}
    ours = create_method(name, network, num_classes=2, **options)
    start = ours.adapted_state()
    if name in ("t3a", "cotta", "memo"):  # whose classifier is learned from, or learns, otherwise
        served = torch.stack([ours(images(seed=seed)) for seed in range(3)])
        assert served.shape == (3, 16, 2)
        assert name == "cotta" or len(served.argmax(-1).unique()) == 2
    else:
        other = create_method(name, twin, num_classes=2, **options)
        for seed in range(3):
            torch.testing.assert_close(ours(images(seed=seed)), other(images(seed=seed)))
    if ours.adapted and name != "memo":  # which goes back after each image
        assert any(not torch.equal(ours.adapted[key], value) for key, value in start.items())


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("name", METHODS)
def test_a_head_of_another_width_is_refused_at_creation(name: str, width: int) -> None:
    network = small_network(classes=width)
    with pytest.raises(InputError, match=rf"'8', taken for the classifier, has {width} output"):
        create_method(name, network, num_classes=3, **facts(name, network, 3))


class Answering(nn.Module):
    """A network that packs its logits."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.pack = small_network(classes=3), pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.network(x))


@pytest.mark.parametrize(
    "pack",
    [
        lambda z: (z, [torch.zeros(2)]),
        lambda z: [torch.zeros(len(z), 7), z],
        lambda z: {"loss": torch.zeros(()), "logits": z},
    ],
    ids=["tuple", "list", "dict"],
)
def test_the_logits_of_a_tuple_or_dictionary_are_found(pack: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    packed = Answering(pack)
    plain = Answering(lambda z: z)
    plain.load_state_dict(packed.state_dict())
    methods = [create_method("tent", network, num_classes=3, lr=0.1) for network in (packed, plain)]
    for seed in range(2):
        one, other = (method(images(seed=seed)) for method in methods)
        torch.testing.assert_close(one, other)


def test_an_answer_without_logits_is_a_sentence() -> None:
    method = create_method("tent", Answering(lambda z: (z[:, None], "words")), num_classes=3)
    with pytest.raises(InputError, match=r"tuple \(\(16, 1, 3\)\), which holds no logits"):
        method(images())
    squeezed = torch.randn(5)
    expected = torch.stack([torch.zeros(5), squeezed], 1)
    torch.testing.assert_close(as_logits(squeezed, 2), expected)
    torch.testing.assert_close(as_logits(squeezed[:, None], 2), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 1000}, "^lr=1000 is outside"),
        ({"momentum": 2}, "^momentum=2 "),
        ({"steps": 0}, "^steps=0 must"),
        ({"lr": "auto"}, "which create_method does not know: give a number"),
        ({"lr": "fast"}, "^lr='fast' must be one of auto, float$"),
        ({"optimizer": "adamw"}, "^optimizer='adamw' must be one of sgd, adam, auto$"),
        ({"normalization": "btach"}, "^normalization='btach' must be one of batch"),
        ({"momentum": None}, "^momentum=None must be one of float$"),
        ({"exclude": "features"}, "^exclude='features' must be one of list$"),
    ],
)
def test_errors_are_in_the_words_of_the_caller(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        create_method("tent", small_network(), num_classes=4, **options)
    assert "method." not in str(caught.value)
    assert "adapt.py" not in str(caught.value)
