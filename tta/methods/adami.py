"""AdaMI: sure pixels, and as many of each class as a prior says."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, Published, UpdateConfig
from holdfast.tta.options import option, within

#: Within logarithms, as published.
_LEAST = 1e-10


@dataclass
class AdaMIConfig(UpdateConfig):
    """Hyperparameters of AdaMI."""

    published = Published(optimizer="adam", lr=5e-4)

    prior: Any = option(
        "control",
        "share that each class should have in an image: control (what the un-updated network finds "
        "there), source (that of the training images), or a list of shares",
    )
    weight: float = option(1.0, "weight of the divergence from the prior, at least 0")
    background: float = option(
        0.1, "weight of the first class in the entropy, in (0, 1); others share the rest"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "weight", 0, math.inf, right=False)
        within(self, "background", 0, 1, left=False, right=False)
        if isinstance(self.prior, str) and self.prior not in ("control", "source"):
            raise InputError(
                f"method.prior={self.prior} must be control, source, or a list of shares"
            )


class AdaMI(NormAffineMethod):
    """Class-weighted entropy, and the Kullback-Leibler divergence of each image's class shares from
    a prior.

    As published the prior comes from anatomy and from image-level tags; here from the source, from
    what the un-updated network finds in the image, or from you.
    """

    Config: ClassVar[type[MethodConfig]] = AdaMIConfig
    config: AdaMIConfig
    paper: ClassVar[str] = "Bateson et al., MICCAI 2022"
    passes: ClassVar[str] = "2/1"
    uses: ClassVar[tuple[str, ...]] = ("prevalence",)
    needs_mixed_batch: ClassVar[bool] = False

    def register_state(self) -> None:
        """The prior, where it is one for all images, and the classes' weights."""
        classes = self.num_classes
        weights = torch.full((classes,), (1 - self.config.background) / (classes - 1))
        weights[0] = self.config.background
        self.register_buffer("weights", weights)
        if self.config.prior != "control":
            given = self.known("prevalence") if self.config.prior == "source" else self.config.prior
            prior = torch.as_tensor(given, dtype=torch.float32).flatten()
            if len(prior) != self.task.cells:
                raise InputError(
                    f"method.prior has {len(prior)} shares, and {self.task.cells} are needed"
                )
            self.register_buffer("shares", prior.view(self.task.groups, classes).clone())
        self.weights: Tensor
        self.shares: Tensor

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Weighted entropy and divergence, in nats."""
        log_p = prediction.logits.float().log_softmax(1)
        p = log_p.exp()
        sure = -(self.weights * p * log_p).sum(1).mean()
        found = self._by_image(p, len(prediction.served))
        if self.config.prior == "control":
            control = self.control(images)
            wanted = self._by_image(control.logits.float().softmax(1), len(control.served))
        else:
            wanted = self.shares[None]
        apart = found * ((found + _LEAST).log() - (wanted + _LEAST).log())
        return sure + self.config.weight * apart.sum((1, 2)).mean() / self.task.groups

    def _by_image(self, p: Tensor, images: int) -> Tensor:
        """(N, G, C) shares of the classes in each image; as released a row counts for each class by
        its probability over that of the likeliest.
        """
        relative = p / (p.amax(1, keepdim=True) + _LEAST)
        sizes = relative.view(images, -1, self.task.groups, self.num_classes).mean(1)
        return sizes / (sizes.sum(2, keepdim=True) + _LEAST)
