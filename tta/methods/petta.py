"""PeTTA: RoTTA whose teacher slows down, and whose weights are held back, as features leave the
source's.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.divergence import departure, running_class_means
from holdfast.tta.marginal import likeliest
from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.rotta import RoTTA, RoTTAConfig, Sample
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.methods.tensors import Tensors
from holdfast.tta.objectives import cross_entropy, symmetric_cross_entropy
from holdfast.tta.options import option, within


@dataclass
class PeTTAConfig(RoTTAConfig):
    """Hyperparameters of PeTTA."""

    loss: Literal["ce", "sce"] = option(
        "ce",
        "what the teacher teaches by: ce, cross-entropy of the view (published for ImageNet), or "
        "sce, symmetric "
        "cross-entropies of image and view (published for CIFAR)",
    )
    anchor_weight: float = option(
        10.0, "weight of the pull towards the source's weights where features have left it wholly"
    )
    feature_ema: float = option(0.95, "memory of the running class means of features, in [0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "anchor_weight", 0, float("inf"), right=False)
        within(self, "feature_ema", 0, 1)


class PeTTA(RoTTA):
    """A teacher's loss, the cosine distance to the source's weights, and cross-entropy to the
    source's prediction.

    The divergence γ says how far the running feature means of a batch's classes have left the
    source's; it weighs the pull towards the source up, and the teacher's rate down. Unlike in RoTTA
    the ages of samples do not weigh the loss. Teacher, student and source each keep moving
    statistics of their own.
    """

    Config: ClassVar[type[MethodConfig]] = PeTTAConfig
    config: PeTTAConfig
    paper: ClassVar[str] = "Hoang et al., NeurIPS 2024"
    passes: ClassVar[str] = "1/0, and 4/1 an update"
    uses: ClassVar[tuple[str, ...]] = ("feature_mean", "feature_var")
    source_mean: Tensor
    source_var: Tensor
    mean: Tensor
    gamma: Tensor
    source_moving: Tensors

    def register_state(self) -> None:
        """RoTTA's; means and variances of the source's classes, their running means, γ; the
        source's moving statistics.
        """
        super().register_state()
        mean, var = (torch.as_tensor(self.known(name), dtype=torch.float32) for name in self.uses)
        self.register_buffer("source_mean", mean.clone())
        self.register_buffer("source_var", var.clone())
        self.register_buffer("mean", mean.clone())
        self.register_buffer("gamma", torch.zeros(()))
        self.source_moving = Tensors(self.moving_statistics())

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """RoTTA's, under the divergence as it was before this batch; then the running means take
        the batch in.
        """
        told = self.task.sample(prediction)
        labels = told.cells(likeliest(told.logits))
        present = torch.bincount(labels, minlength=self.task.cells) > 0
        known = (self.source_mean[present], self.source_var[present])
        self.gamma.copy_(departure(self.mean[present], *known))
        update = super().learn(images, prediction)
        features = told.features.detach().float()
        self.mean, _ = running_class_means(self.mean, features, labels, self.config.feature_ema)
        return update

    def learn_from(self, pool: Tensor, samples: list[Sample]) -> Tensor:
        """Updates on the memory; the teacher follows the slower the further features have gone."""
        images = pool[[sample.row for sample in samples]]
        for _ in range(self.config.steps):
            with torch.no_grad():
                taught = self.run(images, self.teacher.values()).logits
                self.keep_moving()
            # As released, the student's statistics take the images in before the views, whether the
            # loss asks for them or not.
            with torch.set_grad_enabled(self.config.loss == "sce"):
                plain = self.run_student(images).logits
            with torch.no_grad():
                moving = self.source_moving.values()
                anchored, moving = self.run_apart(images, self.source_values, moving)
                self.source_moving.take(moving)
            student = self.run_student(*self.viewed(images)).logits
            loss = (
                self.self_training(plain, student, taught).mean()
                - self.config.anchor_weight * self.gamma * self.cosines().mean()
                + cross_entropy(student, anchored.logits).mean()
            )
            self.descend(loss)
            self.teacher.follow(dict(self.adapted), self.config.rate * (1 - float(self.gamma)))
        return loss.detach()

    def self_training(self, plain: Tensor, view: Tensor, taught: Tensor) -> Tensor:
        """What each image costs the student, whose logits of it are ``plain`` and of its view
        ``view``: (N,) of (N, C).
        """
        if self.config.loss == "ce":
            return cross_entropy(view, taught)
        both = symmetric_cross_entropy(plain, taught) + symmetric_cross_entropy(view, taught)
        return both / 2

    def cosines(self) -> Tensor:
        """Cosine between each adapted tensor and the source's."""
        return torch.stack(
            [
                F.cosine_similarity(
                    p.flatten(), self.source_values[name].flatten(), dim=0, eps=1e-8
                )
                for name, p in self.adapted.items()
            ]
        )
