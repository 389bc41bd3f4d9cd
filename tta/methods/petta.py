"""PeTTA: RoTTA whose teacher slows down, and whose weights are held back, as features leave the source's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tta.divergence import divergence, running_class_means
from tta.methods.rotta import RoTTA, RoTTAConfig, Sample
from tta.methods.settings import MethodConfig
from tta.objectives import cross_entropy
from tta.options import option, within
from tta.views import random_view


@dataclass
class PeTTAConfig(RoTTAConfig):
    """Hyperparameters of PeTTA."""

    anchor_weight: float = option(
        10.0, "weight of the pull towards the source's weights where features have left it wholly"
    )
    feature_ema: float = option(0.95, "memory of the running class means of features, in [0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "anchor_weight", 0, float("inf"), right=False)
        within(self, "feature_ema", 0, 1)


class PeTTA(RoTTA):
    """RoTTA's loss, the cosine distance to the source's weights, and cross-entropy to the source's prediction.

    The divergence γ of a class is 1 − exp(−mean squared distance of its running feature mean to the source's, in units of
    the source's variance). It weighs the pull towards the source up, and the teacher's rate down.
    """

    Config: ClassVar[type[MethodConfig]] = PeTTAConfig
    config: PeTTAConfig
    paper: ClassVar[str] = "Hoang et al., NeurIPS 2024"
    passes: ClassVar[str] = "1/0, and 3/1 an update"
    uses: ClassVar[tuple[str, ...]] = ("feature_mean", "feature_var")
    source_mean: Tensor
    source_var: Tensor
    mean: Tensor

    def register_state(self) -> None:
        """RoTTA's, the source's class means and variances, and the running class means."""
        super().register_state()
        mean, var = (torch.as_tensor(self.known(name), dtype=torch.float32) for name in self.uses)
        self.register_buffer("source_mean", mean.clone())
        self.register_buffer("source_var", var.clone())
        self.register_buffer("mean", mean.clone())

    def learn_from(self, pool: Tensor, samples: list[Sample]) -> Tensor:
        """Updates on the memory; the teacher follows the slower the further features have gone."""
        images = pool[[sample.row for sample in samples]]
        labels = torch.tensor([sample.label for sample in samples], device=images.device)
        ages = images.new_tensor([sample.age / self.config.capacity for sample in samples])
        for _ in range(self.config.steps):
            with torch.no_grad():
                taught = self.run(images, self.teacher.values())
                self.keep_moving()
                divergence = self._divergence(taught.features.float(), labels)
                view = random_view(images, self.generator)
                anchored = self.run(view, self._source).logits
            student = self.run(view).logits
            cosines = [
                F.cosine_similarity(p.flatten(), self._source[name].flatten(), dim=0, eps=1e-8)
                for name, p in self.adapted.items()
            ]
            loss = (
                (cross_entropy(student, taught.logits) * torch.sigmoid(-ages)).mean()
                - self.config.anchor_weight * divergence * torch.stack(cosines).mean()
                + cross_entropy(student, anchored).mean()
            )
            self.descend(loss)
            self.teacher.follow(dict(self.adapted), self.config.rate * (1 - float(divergence)))
        return loss.detach()

    def _divergence(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean γ of the classes in memory, after their running means took it in."""
        self.mean, present = running_class_means(
            self.mean, features, labels, self.config.feature_ema
        )
        return divergence(self.mean, self.source_mean, self.source_var)[present].mean()
