"""T3A: classify by templates that confident target features keep adjusting."""

from dataclasses import dataclass
from typing import ClassVar, cast

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
from holdfast.tta.tasks import Task


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
        weight = self.classifier().weight.detach().float().flatten(1)
        if len(weight) < self.num_classes:  # one logit: the classes lie on either side
            weight = torch.cat([-weight / 2, weight / 2])
        logits = self._classified(weight)
        self.memory = {
            "features": F.normalize(weight, dim=1),
            "labels": logits.argmax(1),
            "entropies": entropy(logits),
        }

    @classmethod
    def refuses(cls, task: Task) -> str | None:
        """Templates stand for classes that exclude each other."""
        return None if task.groups == 1 else "keeps templates of classes that exclude each other"

    def classifier(self) -> nn.Linear | nn.Conv2d:
        """The head, which must be linear: a convolution of one pixel is."""
        head = self.model.get_submodule(self.head_name)
        pixel = isinstance(head, nn.Conv1d | nn.Conv2d | nn.Conv3d) and set(head.kernel_size) == {1}
        if not (isinstance(head, nn.Linear) or (pixel and self.task.dense)):
            raise InputError(
                f"T3A needs a Linear classifier, and {self.head_name} is {type(head).__name__}: "
                "name it, head=NAME"
            )
        return cast(nn.Linear, head)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Logits by the templates as they are."""
        if self.task.dense:
            return self.run(images, self._as_head())
        return self._by_templates(self.run(images).features)

    @torch.no_grad()
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Take the batch, or some of its pixels, into the supports, then predict."""
        features = self.task.sample(prediction).features
        logits = self._classified(features)
        memory = {
            "features": torch.cat([self.memory["features"], F.normalize(features.float(), dim=1)]),
            "labels": torch.cat([self.memory["labels"], logits.argmax(1)]),
            "entropies": torch.cat([self.memory["entropies"], entropy(logits)]),
        }
        kept = self._lowest(memory["labels"], memory["entropies"])
        self.memory = {name: value[kept] for name, value in memory.items()}
        if self.task.dense:
            return Update(prediction=self.predict(images))
        return Update(prediction=self._by_templates(features))

    def _classified(self, features: Tensor) -> Tensor:
        head = self.classifier()
        logits = F.linear(features.float(), head.weight.flatten(1), head.bias).float().detach()
        return as_logits(logits, self.num_classes)

    def _by_templates(self, features: Tensor) -> Prediction:
        return Prediction(features.float() @ self._templates().T, features)

    def _templates(self) -> Tensor:
        """(C, D) of length 1."""
        supports, labels = self.memory["features"], self.memory["labels"]
        sums = supports.new_zeros(self.num_classes, supports.shape[1]).index_add_(
            0, labels, supports
        )
        return F.normalize(sums, dim=1)

    def _as_head(self) -> dict[str, Tensor]:
        """The templates as the head's own tensors."""
        head, templates = self.classifier(), self._templates()
        if len(head.weight) < self.num_classes:  # one logit: the second class's over the first's
            templates = templates[1:] - templates[:1]
        values = {"weight": templates.view(head.weight.shape).to(head.weight)}
        if head.bias is not None:
            values["bias"] = torch.zeros_like(head.bias)
        return {f"{self.head_name}.{name}": value for name, value in values.items()}

    def _lowest(self, labels: Tensor, entropies: Tensor) -> Tensor:
        """Rows of the lowest entropies of each class, in their order."""
        order = entropies.argsort(stable=True)
        order = order[labels[order].argsort(stable=True)]  # by class, and by entropy within it
        counts = torch.bincount(labels, minlength=self.num_classes)
        starts = counts.cumsum(0) - counts
        rank = torch.arange(len(order), device=order.device) - starts[labels[order]]
        return order[rank < self.config.supports].sort().values
