"""T3A: classify by templates that confident target features keep adjusting."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import Statistics
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option
from holdfast.tta.outputs import as_logits


@dataclass
class T3AConfig(MethodConfig):
    """Hyperparameters of T3A."""

    supports: int = option(100, "features kept for each class, those of lowest entropy")

    def __post_init__(self) -> None:
        if self.supports < 1:
            raise InputError(f"method.supports={self.supports} must be at least 1")


class T3A(Method):
    """Inner product with each class's mean support: the classifier's row and confident normalised
    features.
    """

    Config: ClassVar[type[MethodConfig]] = T3AConfig
    config: T3AConfig
    normalization: ClassVar[Statistics] = "source"
    paper: ClassVar[str] = "Iwasawa and Matsuo, NeurIPS 2021"
    updates: ClassVar[str] = "classifier templates"
    needs_mixed_batch: ClassVar[bool] = False

    def register_state(self) -> None:
        """The supports: features, their classes and entropies."""
        weight = self.classifier().weight.detach().float()
        if len(weight) < self.num_classes:  # one logit: the classes lie on either side
            weight = torch.cat([-weight / 2, weight / 2])
        logits = self._classified(weight)
        self.memory = {
            "features": F.normalize(weight, dim=1),
            "labels": logits.argmax(1),
            "entropies": entropy(logits),
        }

    def classifier(self) -> nn.Linear:
        """The head, which must be linear."""
        head = self.model.get_submodule(self.head_name)
        if not isinstance(head, nn.Linear):
            raise InputError(
                f"T3A needs a Linear classifier, and {self.head_name} is {type(head).__name__}: "
                "name it, head=NAME"
            )
        return head

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Logits by the templates as they are."""
        return self._by_templates(self.run(images).features)

    @torch.no_grad()
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Take the batch into the supports, then predict."""
        features = prediction.features
        logits = self._classified(features)
        memory = {
            "features": torch.cat([self.memory["features"], F.normalize(features.float(), dim=1)]),
            "labels": torch.cat([self.memory["labels"], logits.argmax(1)]),
            "entropies": torch.cat([self.memory["entropies"], entropy(logits)]),
        }
        kept = self._lowest(memory["labels"], memory["entropies"])
        self.memory = {name: value[kept] for name, value in memory.items()}
        return Update(prediction=self._by_templates(features))

    def _classified(self, features: Tensor) -> Tensor:
        head = self.classifier()
        logits = F.linear(features.float(), head.weight, head.bias).float().detach()
        return as_logits(logits, self.num_classes)

    def _by_templates(self, features: Tensor) -> Prediction:
        supports, labels = self.memory["features"], self.memory["labels"]
        sums = supports.new_zeros(self.num_classes, supports.shape[1]).index_add_(
            0, labels, supports
        )
        return Prediction(features.float() @ F.normalize(sums, dim=1).T, features)

    def _lowest(self, labels: Tensor, entropies: Tensor) -> Tensor:
        """Rows of the lowest entropies of each class, in their order."""
        order = entropies.argsort(stable=True)
        order = order[labels[order].argsort(stable=True)]  # by class, and by entropy within it
        counts = torch.bincount(labels, minlength=self.num_classes)
        starts = counts.cumsum(0) - counts
        rank = torch.arange(len(order), device=order.device) - starts[labels[order]]
        return order[rank < self.config.supports].sort().values
