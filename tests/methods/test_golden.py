"""Methods against what the released implementations returned; tests/golden/README.md says how the
files were made.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.tta.methods import METHODS, Method, create_method
from tests.conftest import ROOT, golden, golden_network
from tests.methods.test_golden_pixels import OF_PIXELS

#: Files without hyperparameters of ours, by method and hyperparameters.
PLAIN = {
    "source": ("source", {}),
    "norm": ("norm", {}),
    "tent_sgd": ("tent", {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}),
    "eta": (
        "eta",
        {
            "optimizer": "sgd",
            "lr": 0.01,
            "momentum": 0.9,
            "entropy_margin": 0.4 * math.log(4),
            "redundancy_margin": 0.8,
        },
    ),
    "dsbr_bn": ("dsbr", {"optimizer": "adam", "lr": 1e-3, "ema": 0.9}),
}
#: The files that say by themselves what made them.
FILES = sorted(
    path.stem
    for path in (ROOT / "tests" / "golden").glob("*.npz")
    if path.stem not in PLAIN
    and path.stem != "stream"
    and not path.stem.startswith("model_")
    and not path.stem.endswith("_pixels")
)
#: What stands for random views on both sides: it differs from the image, so that confusing the two
#: shows.
VIEWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip": lambda images, _: images.flip(-1),
    "roll": lambda images, _: torch.stack(
        [image.roll(index, -1) for index, image in enumerate(images)]
    ),
}
#: LAME returns probabilities there, and logarithms here.
PROBABILITIES = ("lame",)


def images() -> Tensor:
    return torch.from_numpy(golden("stream")["images"])


def assert_parameters(method: Method, expected: dict[str, Any]) -> None:
    state = method.model.state_dict()
    for key in (key for key in expected if key.startswith("param/") and "num_batches" not in key):
        torch.testing.assert_close(
            state[key[6:]], torch.from_numpy(expected[key]), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("file", PLAIN)
def test_logits_and_parameters_equal_the_released_implementation(file: str) -> None:
    name, hyperparameters = PLAIN[file]
    expected = golden(file)
    method = create_method(name, golden_network(), num_classes=4, **hyperparameters)
    logits = torch.stack([method(batch) for batch in images()])
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]), atol=1e-4, rtol=0)
    assert_parameters(method, expected)


def known(expected: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the method was told of the source: a tensor, or a dictionary of tensors by parameter."""
    facts = {
        key[5:]: torch.from_numpy(value)
        for key, value in expected.items()
        if key.startswith("fact/")
    }
    for name in {key.split("/")[0] for key in facts}:
        nested = {k.split("/")[1]: v for k, v in facts.items() if k.startswith(f"{name}/")}
        yield name, nested or facts[name]


@pytest.mark.parametrize("file", FILES)
def test_a_stream_equals_the_released_implementation(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = golden(file)
    made = json.loads(str(expected["meta"]))
    if "views" in made:
        view = VIEWS[made["views"]]
        monkeypatch.setattr(
            "holdfast.tta.methods.informed.view_with_move", lambda *given: (view(*given), None)
        )
    torch.manual_seed(made["seed"])
    network = golden_network(made["norm"])
    method = create_method(
        made["method"], network, num_classes=4, **made["hyperparameters"], **dict(known(expected))
    )
    start = method.adapted_state()
    for batch, logits in zip(images(), torch.from_numpy(expected["logits"]), strict=True):
        served = method(batch)
        served = served.softmax(1) if made["method"] in PROBABILITIES else served
        torch.testing.assert_close(served, logits, atol=1e-4, rtol=0)
    assert_parameters(method, expected)
    if method.adapted and made["method"] != "memo":  # a stream that moved nothing shows nothing
        now = method.adapted_state()
        assert max(float((now[name] - value).abs().max()) for name, value in start.items()) > 1e-3


def test_every_method_that_learns_has_golden_vectors() -> None:
    files = {json.loads(str(golden(file)["meta"]))["method"] for file in FILES}
    assert {name for name, _ in PLAIN.values()} | files | OF_PIXELS == set(METHODS)
