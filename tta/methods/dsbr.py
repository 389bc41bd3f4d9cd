"""DSBR: entropy minimisation in which each predicted class has its share of the loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tta.errors import InputError
from tta.methods.base import MethodConfig, NormAffineMethod, Prediction, UpdateConfig
from tta.objectives import balanced_weights, entropy
from tta.options import option


@dataclass
class DSBRConfig(UpdateConfig):
    """Hyperparameters of DSBR; Adam at 1e-3 as published."""

    optimizer: Literal["sgd", "adam", "auto"] = option("adam", "sgd, adam, or auto: chosen by adapt.py, as lr=auto")
    lr: float | Literal["auto"] = option(1e-3, "learning rate, or auto: the published scaling for network and batch size")
    ema: float = option(0.9, "memory of the running class marginal, in [0, 1); 0: each batch by itself")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ema < 1:
            raise InputError(f"method.ema={self.ema} is outside [0, 1)")


class DSBR(NormAffineMethod):
    """Entropy weighted by 1/C over the running share of the sample's predicted class.

    "Entropy Minimization without Model Collapse: Mitigating Prediction Bias in Medical Imaging", arXiv 2606.02339.
    """

    Config: ClassVar[type[MethodConfig]] = DSBRConfig
    config: DSBRConfig
    marginal: Tensor
    target: Tensor

    def register_state(self) -> None:
        """The running marginal of predictions, and the share that each class should have."""
        self.register_buffer("marginal", torch.full((self.num_classes,), 1 / self.num_classes))
        self.register_buffer("target", torch.full((self.num_classes,), 1 / self.num_classes))

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Balanced entropy; the running marginal takes in the batch before it is read."""
        labels = prediction.logits.argmax(-1)
        share = F.one_hot(labels, self.num_classes).to(self.marginal).mean(0)
        self.marginal.mul_(self.config.ema).add_(share, alpha=1 - self.config.ema)
        return (entropy(prediction.logits) * balanced_weights(labels, self.marginal, self.target)).mean()
