"""CoTTA: learn from an averaging teacher, and restore a random part of the source at every step."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from holdfast.tta.distributed import joint_mean
from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.methods.tensors import Tensors
from holdfast.tta.objectives import cross_entropy, symmetric_cross_entropy
from holdfast.tta.options import option, within
from holdfast.tta.selection import parameters_outside


@dataclass
class CoTTAConfig(UpdateConfig):
    """Hyperparameters of CoTTA."""

    ema: float = option(0.999, "memory of the teacher's weights, in [0, 1]")
    restore: float = option(
        0.01,
        "share of the weights restored to the source after a step; published: .001 for 1000 "
        "classes",
    )
    views: int = option(32, "augmented views that the teacher averages where the source is unsure")
    symmetric: bool = option(
        False, "cross-entropy in both directions, as published for 1000 classes"
    )
    threshold: float | None = option(
        None,
        "mean confidence of the source below which it is unsure; null: .92 up to 10 classes, .72 "
        "up to 100, .1 above",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "ema", 0, 1)
        within(self, "restore", 0, 1)
        within(self, "threshold", 0, 1)
        if self.views < 1:
            raise InputError(f"method.views={self.views} must be at least 1")


class CoTTA(Method):
    """Cross-entropy to a teacher that is the running mean of the student; the teacher predicts."""

    Config: ClassVar[type[MethodConfig]] = CoTTAConfig
    config: CoTTAConfig
    paper: ClassVar[str] = "Wang et al., CVPR 2022"
    passes: ClassVar[str] = "3/1, 3+views/1 where the source is unsure"
    updates: ClassVar[str] = "all weights and biases"
    teacher: Tensors

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Every weight and bias outside the excluded layers; as released, no token or position of a
        transformer.
        """
        found = parameters_outside(model, self.config.exclude or [])
        return {name: p for name, p in found.items() if name.split(".")[-1] in ("weight", "bias")}

    def register_state(self) -> None:
        """The teacher's weights."""
        self.teacher = Tensors(self.source_values)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """What the teacher says; the mean over views where the source is unsure."""
        teacher = self.teacher.values()
        sure = self.run(images, self.source_values).logits.softmax(1).amax(1)
        confidence = joint_mean(sure)  # all processes take views, or none
        prediction = self.run(images, teacher)
        if not confidence < self._threshold():  # nor where it is NaN
            return prediction
        views = [self.run_view(images, teacher) for _ in range(self.config.views)]
        output = prediction.output
        if output is not None:
            output = torch.stack([view.served for view in views]).mean(0)
        return prediction._replace(
            logits=torch.stack([view.logits for view in views]).mean(0), output=output
        )

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Cross-entropy of the student to the teacher."""
        loss = symmetric_cross_entropy if self.config.symmetric else cross_entropy
        return joint_mean(loss(self.run(images).logits, prediction.logits))

    @torch.no_grad()
    def descend(self, loss: Tensor) -> None:
        """One optimiser step; the teacher follows; a random part goes back to the source."""
        with torch.enable_grad():
            super().descend(loss)
        self.teacher.follow(dict(self.adapted), 1 - self.config.ema)
        self.restore_elements(self.config.restore)

    def _threshold(self) -> float:
        if self.config.threshold is not None:
            return self.config.threshold
        return 0.92 if self.num_classes <= 10 else 0.72 if self.num_classes <= 100 else 0.1
