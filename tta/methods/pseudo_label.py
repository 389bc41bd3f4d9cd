"""Pseudo-labels: train on confident predictions as if they were labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.distributed import any_of_all, joint_mean
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.options import option, within


@dataclass
class PseudoLabelConfig(UpdateConfig):
    """Hyperparameters of pseudo-labelling."""

    threshold: float = option(0.9, "least confidence of a pseudo-label, in [0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "threshold", 0, 1)


class PseudoLabel(NormAffineMethod):
    """Cross-entropy to the predicted class, where the prediction is confident."""

    Config: ClassVar[type[MethodConfig]] = PseudoLabelConfig
    config: PseudoLabelConfig
    paper: ClassVar[str] = "Lee, ICML workshop 2013"

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Mean cross-entropy over the confident samples."""
        confidence, labels = prediction.logits.detach().softmax(1).max(1)
        kept = confidence > self.config.threshold
        if not any_of_all(bool(kept.any()), kept.device):
            return None
        losses = F.cross_entropy(prediction.logits[kept], labels[kept], reduction="none")
        return joint_mean(losses)
