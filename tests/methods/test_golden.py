"""Methods against what the released implementations returned."""

import math

import pytest
import torch

from tests.conftest import golden, golden_network
from tta.methods import create_method

CASES = {
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


@pytest.mark.parametrize("file", CASES)
def test_logits_and_parameters_equal_the_released_implementation(file: str) -> None:
    name, hyperparameters = CASES[file]
    expected = golden(file)
    method = create_method(name, golden_network(), num_classes=4, **hyperparameters)
    logits = torch.stack(
        [method(images) for images in torch.from_numpy(golden("stream")["images"])]
    )
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]), atol=1e-4, rtol=0)
    state = method.model.state_dict()
    for key in (key for key in expected if key.startswith("param/") and "num_batches" not in key):
        torch.testing.assert_close(
            state[key[6:]], torch.from_numpy(expected[key]), atol=1e-4, rtol=0
        )
