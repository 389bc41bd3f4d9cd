"""One label an image."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.metrics import Tally, balanced_accuracy
from holdfast.tta.outputs import as_logits, check_width
from holdfast.tta.prediction import Prediction
from holdfast.tta.scores import scores
from holdfast.tta.selection import find_head, name_of
from holdfast.tta.tasks.base import Task
from holdfast.tta.tasks.kept import Scorer


class Single(Task):
    """Each image belongs to one of C classes; rows are images."""

    name: ClassVar[str] = "single"
    watch: ClassVar[str] = "balanced_accuracy"
    view: ClassVar[str] = "classes"
    screens_mix: ClassVar[bool] = True

    def head(self, model: nn.Module, name: str | None) -> nn.Module:
        """The classifier: the last Linear layer, unless it is named."""
        found = find_head(model, name)
        check_width(found, name_of(model, found), self.num_classes)
        return found

    def output(self, answer: Any) -> Tensor:
        """Logits (N, C)."""
        return as_logits(answer, self.num_classes)

    def probabilities(self, output: Tensor) -> Tensor:
        """(N, C), each row's sum 1."""
        return output.softmax(1)

    def inverse(self, probabilities: Tensor) -> Tensor:
        """Their logarithms."""
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

    def decide(self, probabilities: Tensor) -> Tensor:
        """(N,) the likeliest class of each image."""
        return probabilities.argmax(1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy to labels (N,), in nats."""
        return F.cross_entropy(output, target)

    def scorer(self) -> Scorer:
        """Accuracy and balanced accuracy."""
        return Tally(self.num_classes)

    def scored(
        self,
        probabilities: Tensor,
        truth: Tensor,
        class_names: Sequence[str],
        domains: Sequence[str],
        **more: Any,
    ) -> dict[str, Any]:
        """All figures of classes, with intervals; see ``tta.scores.scores``."""
        return scores(probabilities, truth, class_names, domains, **more)

    def figure(self, probabilities: Tensor, truth: Tensor) -> float:
        """Balanced accuracy."""
        return balanced_accuracy(probabilities.argmax(1), truth, self.num_classes)

    def rows(self, output: Tensor, features: Tensor) -> Prediction:
        """The images."""
        return Prediction(output, features)

    def labels(self, target: Tensor, prediction: Prediction) -> Tensor:
        """The labels (N,) themselves."""
        return target

    def mix(self, prediction: Prediction) -> Tensor:
        """(N, 1, C) the probabilities of each image."""
        return prediction.logits.softmax(1)[:, None]
