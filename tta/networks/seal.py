"""Whether a network that is built again still says what it said."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from holdfast.tta.errors import InputError
from holdfast.tta.networks.create import OURS
from holdfast.tta.networks.modules import Network

#: How far probabilities of a network that is built again may be from what they were: devices round
#: otherwise, another version of a library computes something else.
_ANSWER_WITHIN = 0.02


def sealed(network: Network, description: Mapping[str, Any]) -> dict[str, Any]:
    """The description, and of code that is not ours what the network says of a fixed image.

    Another version of a library, or an edited file, may build a network of the same shapes that
    computes something else; ``check_seal`` finds out.
    """
    if description["kind"] in OURS:
        return dict(description)
    return {**description, "answer": _answer(network, description)}


def check_seal(network: Network, description: Mapping[str, Any]) -> None:
    """Refuse a network, built again with its weights, that no longer says what it said.

    Raises:
        InputError: it says something else.
    """
    expected = description.get("answer")
    if expected is None:
        return
    found = _answer(network, description)
    apart = max((abs(a - b) for a, b in zip(found, expected, strict=True)), default=0.0)
    if not apart <= _ANSWER_WITHIN:  # a NaN is not
        name = description["options"]["name"]
        raise InputError(
            f"the network {name} is not what it was when the source was trained: on a fixed image "
            f"a probability is off by {apart:.2f}: take the file or the version of the library "
            "that it was trained with"
        )


@torch.no_grad()
def _answer(network: Network, description: Mapping[str, Any]) -> list[float]:
    """Probabilities (C,) of an image that is the same everywhere: waves across all its axes."""
    count = description["channels"] * math.prod(description["size"])
    image = (torch.arange(count, dtype=torch.float64) * 0.37).sin() / 2 + 0.5
    image = image.float().reshape(1, description["channels"], *description["size"])
    mode = network.training
    logits = network.eval()(image.to(network.mean.device))
    network.train(mode)
    shares = logits.softmax(1)[0]
    answer: list[float] = shares.reshape(len(shares), -1).mean(1).tolist()  # of pixels the mean
    return answer
