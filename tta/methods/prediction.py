"""What a method says of a batch, and what an update did."""

from typing import NamedTuple

from torch import Tensor

from holdfast.tta.prediction import Prediction

__all__ = ["Prediction", "Update"]


class Update(NamedTuple):
    """What an update did.

    Attributes:
        loss: its loss; None where there was no gradient step.
        skipped: the reason why nothing was learned, or None.
        prediction: what the batch leaves with, where the method changes its prediction after the
            forward pass.
        restored: the method took itself back to the source.
    """

    loss: Tensor | None = None
    skipped: str | None = None
    prediction: Prediction | None = None
    restored: bool = False
