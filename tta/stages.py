"""The four stages of Lightning's Trainer in which a stream may run, and what each needs so that a
model learns in it as in ``fit``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

#: The step of a LightningModule that a stage calls, by the name that ``setup`` gets of the stage.
STEPS: Mapping[str, str] = {
    "fit": "training_step",
    "validate": "validation_step",
    "test": "test_step",
    "predict": "predict_step",
}


@contextmanager
def as_in_fit() -> Iterator[None]:
    """Within it tensors have gradients, and live on, whatever loop of the Trainer runs.

    ``validate``, ``test`` and ``predict`` run in inference mode, or without gradients. What is made
    in inference mode can neither be learned from nor be changed in a later ``fit``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
