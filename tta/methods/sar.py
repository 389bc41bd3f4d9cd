"""SAR: sharpness-aware entropy minimisation on reliable samples."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.options import option, within


@dataclass
class SARConfig(UpdateConfig):
    """Hyperparameters of SAR."""

    entropy_margin: float | None = option(
        None, "entropy below which a sample is reliable, in nats; null: 0.4 ln C"
    )
    rho: float = option(0.05, "radius of the neighbourhood that should be flat, at least 0")
    reset_threshold: float | None = option(
        0.029,
        "running loss, as a fraction of ln C, below which the source is restored; null: never",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "entropy_margin", 0, math.inf, left=False)
        within(self, "rho", 0, math.inf, right=False)
        within(self, "reset_threshold", 0, 1)


class SAR(NormAffineMethod):
    """Entropy of reliable samples at the worst point of a small neighbourhood; restores the source
    when it gets too low.

    The published threshold of 0.2 nats belongs to 1000 classes (.029 ln C); for two it would always
    fire.
    """

    Config: ClassVar[type[MethodConfig]] = SARConfig
    config: SARConfig
    paper: ClassVar[str] = "Niu et al., ICLR 2023"
    passes: ClassVar[str] = "2/2"
    updates: ClassVar[str] = "norm affine but the last stage"
    spares_last_stage: ClassVar[bool] = True
    running_loss: Tensor

    def register_state(self) -> None:
        """The running second loss; NaN as long as there was none."""
        self.register_buffer("running_loss", torch.full((), math.nan))

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """One sharpness-aware step, or as many as ``steps`` says."""
        margin = (
            self.nats(0.4) if self.config.entropy_margin is None else self.config.entropy_margin
        )
        loss = None
        for step in range(self.config.steps):
            if step:
                prediction = self.predict(images)
            loss = self._sharpness_aware_step(images, prediction, margin)
            if loss is None:
                return Update(skipped="all_filtered")
        served = prediction.detach() if self.config.steps > 1 else None
        threshold = self.config.reset_threshold
        if threshold is not None and bool(self.running_loss < self.nats(threshold)):
            self.reset()
            return Update(loss=loss, prediction=served, restored=True)
        return Update(loss=loss, prediction=served)

    def _sharpness_aware_step(
        self, images: Tensor, prediction: Prediction, margin: float
    ) -> Tensor | None:
        losses = self.uncertainty(prediction.logits)
        reliable = losses.detach() < margin
        if not reliable.any():
            return None
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(losses[reliable].mean())
        parameters = [p for p in self.adapted.values() if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g * (self.config.rho / (norm + 1e-12)))
        self.optimizer.zero_grad(set_to_none=True)
        second = self.uncertainty(self.predict(images).logits)[reliable]
        second = second[second.detach() < margin]
        if len(second):
            loss = second.mean()
            self.backward(loss)
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        if not len(second):
            return None
        self.step()
        value = loss.detach().float()
        self.running_loss.copy_(
            torch.where(self.running_loss.isnan(), value, 0.9 * self.running_loss + 0.1 * value)
        )
        return loss.detach()
