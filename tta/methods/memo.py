"""MEMO: for each image by itself, make augmented views agree, then predict."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.normalization import Normalization
from holdfast.tta.objectives import marginal_entropy
from holdfast.tta.options import option
from holdfast.tta.prediction import joined
from holdfast.tta.selection import parameters_outside


@dataclass
class MEMOConfig(UpdateConfig):
    """Hyperparameters of MEMO."""

    views: int = option(32, "augmented views of an image")
    normalization: Literal[Normalization, "auto"] = option(
        "source", "statistics of BatchNorm layers; batch would be those of one image's views"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 1:
            raise InputError(f"method.views={self.views} must be at least 1")


class MEMO(Method):
    """Entropy of the mean prediction over views of one image; weights are restored for each
    image.
    """

    Config: ClassVar[type[MethodConfig]] = MEMOConfig
    config: MEMOConfig
    paper: ClassVar[str] = "Zhang et al., NeurIPS 2022"
    passes: ClassVar[str] = "2/1 an image"
    updates: ClassVar[str] = "all, for each image"
    predicts_first: ClassVar[bool] = False
    needs_mixed_batch: ClassVar[bool] = False

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Every parameter outside the excluded layers."""
        return parameters_outside(model, self.config.exclude or [])

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Adapt to each image in turn, and predict it."""
        predictions, losses = [], []
        for image in torch.split(images, 1):
            for _ in range(self.config.steps):
                logits = self.run_view(image.expand(self.config.views, *image.shape[1:])).logits
                # What the views say of each row of the image, on the mean.
                loss = marginal_entropy(logits, len(logits) // self.config.views)
                self.descend(loss)
            losses.append(loss.detach())
            with torch.no_grad():
                predictions.append(self.run(image))
            self.restore_weights()
        return Update(loss=torch.stack(losses).mean(), prediction=joined(predictions))
