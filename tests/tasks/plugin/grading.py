"""Grades: classes in order, such as none, mild, moderate and severe."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.outputs import as_logits, check_width
from holdfast.tta.prediction import Prediction
from holdfast.tta.selection import find_head, name_of
from holdfast.tta.tasks import Scorer, Task


class Grading(Task):
    """One of C grades an image, in the order of their numbers; rows are images."""

    name: ClassVar[str] = "grading"
    watch: ClassVar[str] = "kappa"

    def head(self, model: nn.Module, name: str | None) -> nn.Module:
        """The last Linear layer."""
        found = find_head(model, name)
        check_width(found, name_of(model, found), self.num_classes)
        return found

    def output(self, answer: Any) -> Tensor:
        """Logits (N, C)."""
        return as_logits(answer, self.num_classes)

    def probabilities(self, output: Tensor) -> Tensor:
        """(N, C) of each grade."""
        return output.softmax(1)

    def inverse(self, probabilities: Tensor) -> Tensor:
        """Their logarithms."""
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

    def decide(self, probabilities: Tensor) -> Tensor:
        """(N,) the median grade."""
        return (probabilities.cumsum(1) < 0.5).sum(1).clamp(max=self.num_classes - 1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each question whether the grade is above k, by cumulative logits."""
        above = torch.stack(
            [
                output[:, k + 1 :].logsumexp(1) - output[:, : k + 1].logsumexp(1)
                for k in range(self.num_classes - 1)
            ],
            1,
        )
        truth = target[:, None] > torch.arange(self.num_classes - 1, device=target.device)
        return F.binary_cross_entropy_with_logits(above, truth.to(above))

    def scorer(self) -> Scorer:
        """Quadratic kappa."""
        return Kappa(self)

    def rows(self, output: Tensor, features: Tensor) -> Prediction:
        """The images."""
        return Prediction(output, features)

    def labels(self, target: Tensor, prediction: Prediction) -> Tensor:
        """The grades themselves."""
        return target

    def mix(self, prediction: Prediction) -> Tensor:
        """(N, 1, C) the probabilities of each image."""
        return prediction.logits.softmax(1)[:, None]


class Kappa:
    """Agreement beyond chance, disagreement counting by the square of its distance (Cohen, 1968),
    in percent.
    """

    def __init__(self, task: Grading) -> None:
        self.task = task
        self.confusion = torch.zeros(task.num_classes, task.num_classes, dtype=torch.float64)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Take in logits (N, C) and grades (N,), -1 where unknown."""
        said, known = self.task.decide(self.task.probabilities(output)).cpu(), target.cpu() >= 0
        for ours, theirs in zip(said[known].tolist(), target.cpu()[known].tolist(), strict=True):
            self.confusion[theirs, ours] += 1

    def merge(self, other: "Kappa") -> None:
        """Take in another's images."""
        self.confusion += other.confusion

    def scores(self) -> dict[str, float]:
        """``kappa``; none where chance alone would agree."""
        grades = torch.arange(len(self.confusion), dtype=torch.float64)
        cost = (grades[:, None] - grades).square()
        chance = torch.outer(self.confusion.sum(1), self.confusion.sum(0))
        if not (cost * chance).any():
            return {}
        total = self.confusion.sum()
        return {
            "kappa": float(
                100 * (1 - (cost * self.confusion).sum() * total / (cost * chance).sum())
            )
        }
