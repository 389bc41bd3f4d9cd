"""Tent: minimise the entropy of predictions."""

from torch import Tensor

from tta.methods.base import NormAffineMethod, Prediction
from tta.objectives import entropy


class Tent(NormAffineMethod):
    """Mean prediction entropy over the batch.

    Wang et al., "Tent: Fully test-time adaptation by entropy minimization", ICLR 2021.
    """

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Mean entropy, in nats."""
        return entropy(prediction.logits).mean()
