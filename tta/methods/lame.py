"""LAME: correct the predictions of a batch by each other, and leave the network alone."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import Statistics
from holdfast.tta.options import option
from holdfast.tta.tasks import Task


@dataclass
class LAMEConfig(MethodConfig):
    """Hyperparameters of LAME."""

    affinity: Literal["knn", "rbf", "linear"] = option(
        "knn", "what makes samples alike: knn, rbf or linear"
    )
    knn: int = option(
        5,
        "neighbours of knn; rbf is as wide as the mean distance to the knn-th (self counts as the "
        "first)",
    )

    def __post_init__(self) -> None:
        if self.knn < 1:
            raise InputError(f"method.knn={self.knn} must be at least 1")


class LAME(Method):
    """Laplacian-adjusted maximum likelihood: neighbours in feature space should agree. Logits are
    log-probabilities.
    """

    Config: ClassVar[type[MethodConfig]] = LAMEConfig
    config: LAMEConfig
    normalization: ClassVar[Statistics] = "source"
    paper: ClassVar[str] = "Boudiaf et al., CVPR 2022"
    updates: ClassVar[str] = "predictions"
    needs_mixed_batch: ClassVar[bool] = False

    @classmethod
    def refuses(cls, task: Task) -> str | None:
        """Where rows are not images, it compares each pixel or finding with every other."""
        return None if task.by_image else f"compares each {task.row} with every other"

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """The source's prediction, adjusted within the batch."""
        plain = self.run(images)
        logits, features = plain.logits, plain.features
        log_p = logits.float().log_softmax(1)
        adjusted = adjusted_assignment(
            log_p, affinities(features.float(), self.config.affinity, self.config.knn)
        )
        # A non-finite image must show, not hide behind its neighbours.
        return Prediction(torch.where(logits.isfinite().all(), adjusted, logits), features)

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Nothing: the prediction is all."""
        return Update()


def affinities(features: Tensor, kind: str, k: int) -> Tensor:
    """How alike the samples are, by their normalised features.

    Args:
        features: (N, D).
        kind: knn: 1 for the k nearest of a row, itself excluded, not symmetrised; rbf: Gaussian
            kernel as wide as the mean distance to the k-th nearest, itself being the first; linear:
            inner product.
        k: number of neighbours.

    Returns:
        (N, N).
    """
    x = F.normalize(features, dim=1)
    if kind == "linear":
        return x @ x.T
    distance = (x[:, None] - x[None]).norm(dim=-1)
    if kind == "rbf":
        width = distance.topk(min(k, len(x)), largest=False).values[:, -1].mean().clamp(min=1e-6)
        return (-distance.square() / (2 * width**2)).exp()
    nearest = distance.fill_diagonal_(math.inf).topk(min(k, len(x) - 1), largest=False).indices
    return torch.zeros_like(distance).scatter_(1, nearest, 1.0)


def adjusted_assignment(
    log_p: Tensor, affinity: Tensor, max_steps: int = 100, tolerance: float = 1e-8
) -> Tensor:
    """Minimise the Laplacian-regularised energy by its concave-convex bound: Y ← softmax(log p +
    A·Y).

    Args:
        log_p: (N, C) log-probabilities.
        affinity: (N, N).
        max_steps: iterations at most.
        tolerance: relative change of the energy at which to stop.

    Returns:
        (N, C) log of the assignments; each row's softmax is its assignment.
    """
    unary = -(log_p.exp() + 1e-10).log()  # the offset keeps an impossible class finite
    log_y = (-unary).log_softmax(1)
    energy = math.inf
    for step in range(max_steps):
        pairwise = affinity @ log_y.exp()
        log_y = (pairwise - unary).log_softmax(1)
        y = log_y.exp()
        value = float((unary * y - pairwise * y + y * log_y.clamp(min=math.log(1e-20))).sum())
        if step > 1 and abs(value - energy) <= tolerance * abs(energy):
            break
        energy = value
    return log_y
