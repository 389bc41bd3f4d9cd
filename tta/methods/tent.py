"""Tent: minimise the entropy of predictions."""

from typing import ClassVar

from torch import Tensor

from holdfast.tta.distributed import joint_mean
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod


class Tent(NormAffineMethod):
    """Mean prediction entropy over the batch."""

    paper: ClassVar[str] = "Wang et al., ICLR 2021"

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Mean entropy, in nats."""
        return joint_mean(self.uncertainty(prediction.logits))
