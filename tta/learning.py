"""Where tensors learn, whatever loop of Lightning's runs; nothing here imports Lightning."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def as_in_fit() -> Iterator[None]:
    """Within it tensors have gradients, and live on, whatever loop of the Trainer runs.

    ``validate``, ``test`` and ``predict`` run in inference mode, or without gradients. What is made
    in inference mode can neither be learned from nor be changed in a later ``fit``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
