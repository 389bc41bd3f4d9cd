"""DOT: entropy minimisation that weighs frequent classes down."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.distributed import joint_mean
from holdfast.tta.marginal import likeliest
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.objectives import group_means
from holdfast.tta.options import option, within


@dataclass
class DOTConfig(UpdateConfig):
    """Hyperparameters of DOT."""

    ema: float = option(0.95, "memory of the running class marginal, in [0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "ema", 0, 1)


class DOT(NormAffineMethod):
    """Entropy weighted by the inverse running marginal of the predicted class, weights normalised
    over the batch.

    The dynamic online reweighting of DELTA, without its renormalisation of features.
    """

    Config: ClassVar[type[MethodConfig]] = DOTConfig
    config: DOTConfig
    paper: ClassVar[str] = "Zhao et al. (DELTA), ICLR 2023"
    marginal: Tensor

    def register_state(self) -> None:
        """The running mean of predicted probabilities."""
        self.register_buffer("marginal", self.uniform())

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Weighted entropy; the marginal is read before it takes in the batch."""
        p = prediction.logits.detach().softmax(1).float()
        cells = prediction.cells(likeliest(p))
        weights = 1 / self.marginal.clamp(min=torch.finfo(p.dtype).tiny)[cells]
        weights = weights / joint_mean(weights)
        self.marginal.lerp_(group_means(p, self.task.groups), 1 - self.config.ema)
        return joint_mean(weights * self.uncertainty(prediction.logits))
