"""ROID: certain and diverse samples, pulled back to the source, with a corrected prior."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.objectives import (
    entropy,
    group_means,
    rescaled,
    similarity,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)
from holdfast.tta.options import option, within


@dataclass
class ROIDConfig(UpdateConfig):
    """Hyperparameters of ROID."""

    temperature: float = option(1 / 3, "temperature of the weights, above 0")
    consistency: bool = option(True, "add the symmetric cross-entropy with an augmented view")
    prior_correction: Literal["log", "multiply", "none"] = option(
        "log",
        "correct predictions by the batch's prior: log (add its logarithm), multiply (as released) "
        "or none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "temperature", 0, math.inf, left=False)


class ROID(NormAffineMethod):
    """Weighted soft likelihood ratio, with consistency; weights averaged with the source's;
    predictions prior-corrected.
    """

    Config: ClassVar[type[MethodConfig]] = ROIDConfig
    config: ROIDConfig
    paper: ClassVar[str] = "Marsden et al., WACV 2024"
    passes: ClassVar[str] = "2/1"
    marginal: Tensor

    def register_state(self) -> None:
        """The running mean of predicted probabilities."""
        self.register_buffer("marginal", self.uniform())

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """The gradient steps, each followed by averaging; the batch leaves with the corrected
        prediction.
        """
        update = super().learn(images, prediction)
        served = (update.prediction or prediction).detach()
        return update._replace(prediction=self.corrected(served))

    def descend(self, loss: Tensor) -> None:
        """One optimiser step, then the average with the source."""
        super().descend(loss)
        self.average()

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Weighted loss over the batch, divided by its size."""
        logits = prediction.logits
        p = logits.detach().softmax(1).float()
        diverse = rescaled(1 - similarity(p, self.marginal, prediction.group))
        certain = rescaled(-entropy(logits.detach().float()))
        kept = diverse >= diverse.mean()
        weights = (diverse * certain / self.config.temperature).exp()[kept]
        self.marginal.lerp_(group_means(p, self.task.groups), 0.1)
        loss = (soft_likelihood_ratio(logits)[kept] * weights).sum() / len(logits)
        if self.config.consistency:
            if prediction.image is None:
                view = self.run_view(images[kept]).logits
            else:
                view = self.run_view(images).logits[kept]
            loss = loss + (symmetric_cross_entropy(view, logits[kept]) * weights).sum() / len(
                logits
            )
        return loss

    @torch.no_grad()
    def average(self) -> None:
        """Pull the weights back by a hundredth of their distance to the source's."""
        for name, parameter in self.adapted.items():
            parameter.lerp_(self.source_values[name], 0.01)

    def corrected(self, prediction: Prediction) -> Prediction:
        """The prediction with the batch's own, smoothed class prior put in, where images have one
        label: of pixels and findings a network has learned how frequent they are.
        """
        logits = prediction.logits
        if self.config.prior_correction == "none" or not self.task.by_image:
            return prediction
        prior = logits.softmax(1).mean(0)
        smooth = max(1 / len(logits), 1 / self.num_classes) / prior.max()
        prior = (prior + smooth) / (1 + smooth * self.num_classes)
        logits = logits + prior.log() if self.config.prior_correction == "log" else logits * prior
        return Prediction(logits, prediction.features)
