"""SHOT-IM: confident predictions of every class, by moving the feature extractor."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from holdfast.tta.distributed import joint_mean
from holdfast.tta.methods.base import Method, Prediction
from holdfast.tta.methods.settings import MethodConfig, Published, UpdateConfig
from holdfast.tta.objectives import marginal_entropy
from holdfast.tta.selection import parameters_outside


@dataclass
class SHOTIMConfig(UpdateConfig):
    """Hyperparameters of SHOT's information maximisation."""

    published = Published(optimizer="adam", lr=1e-3)


class SHOTIM(Method):
    """Mean entropy less the entropy of the mean prediction, in all layers but the classifier."""

    Config: ClassVar[type[MethodConfig]] = SHOTIMConfig
    config: SHOTIMConfig
    paper: ClassVar[str] = "Liang et al., ICML 2020"
    passes: ClassVar[str] = "1/1"
    updates: ClassVar[str] = "feature extractor"

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Every parameter outside the head and the excluded layers."""
        return parameters_outside(model, [self.head_name, *(self.config.exclude or [])])

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Information maximisation, in nats."""
        diversity = marginal_entropy(prediction.logits, self.task.groups)
        return joint_mean(self.uncertainty(prediction.logits)) - diversity
