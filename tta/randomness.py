"""Generators that belong to nobody: torch's, NumPy's and Python's own."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def numpy_state(generator: Any) -> list[Any]:
    """The state of NumPy's ``RandomState``, or of its module, as plain values."""
    name, keys, *rest = generator.get_state()
    words = torch.from_numpy(np.asarray(keys, np.uint32).view(np.int32).copy())
    return [name, words, *rest]


def restore_numpy(generator: Any, state: Sequence[Any]) -> None:
    """Draw on where ``numpy_state`` was taken."""
    name, keys, *rest = state
    generator.set_state((name, keys.cpu().numpy().view(np.uint32), *rest))


def random_state() -> dict[str, Any]:
    """The states of all generators that nobody owns."""
    version, numbers, spare = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": numpy_state(np.random),
        "python": [version, list(numbers), spare],
    }


def restore_random(state: Mapping[str, Any]) -> None:
    """Draw on where ``random_state`` was taken."""
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    restore_numpy(np.random, state["numpy"])
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
