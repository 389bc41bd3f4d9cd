"""What the classes of a source look like to its network, row by row, for tasks in which images have
many rows; measured on images whose truth is known.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.tta.batches import images_of, truth_of
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Method
from holdfast.tta.objectives import entropy
from holdfast.tta.separation import ClassMoments
from holdfast.tta.tasks import Task

#: Rows from which entropies and temperature are taken: enough for 101 quantiles.
_ROWS = 200_000


class RowFacts(NamedTuple):
    """Facts of a source, of all cells (``Task.cells``).

    Attributes:
        prevalence: (G·C,) share of each class among the known rows of its group, each image
            counting alike.
        feature_mean: (G·C, D) mean features of each true class; zeros where it has no row.
        feature_var: (G·C, D) their variances.
        separation: J, grouped by predicted class.
        share_quantiles: (101, G·C) quantiles 0 to 1 of what images hold of each class by their
            truth.
        logits: (m, C) of a sample of rows.
        labels: (m,) their true classes.
    """

    prevalence: Tensor
    feature_mean: Tensor
    feature_var: Tensor
    separation: float
    share_quantiles: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def entropy_quantiles(self) -> Tensor:
        """(101,) quantiles 0 to 1 of the prediction entropy, in nats."""
        return torch.quantile(entropy(self.logits), torch.linspace(0, 1, 101))


@torch.no_grad()
def row_facts(method: Method, batches: Iterable[Any]) -> RowFacts:
    """Measure a source on images whose truth is known.

    Args:
        method: that has learned nothing yet.
        batches: in any form that ``images_of`` reads, with masks or findings.

    Raises:
        InputError: none of the images has a truth, or a network's features are not finite.
    """
    task, device = method.task, next(method.model.parameters()).device
    seen = _Seen(task)
    for batch in batches:
        images = images_of(batch)
        truth = truth_of(batch, task.target, len(images))
        if truth is not None:
            seen.add(method.source(images.to(device)), truth.to(device))
    return seen.facts()


class _Seen:
    """Sums over batches."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.shares: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.moments = ClassMoments(task.cells, 0)
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.rows = 0

    def add(self, said: Any, truth: Tensor) -> None:
        """Take in what is said of some images, and what is true."""
        task = self.task
        labels = task.labels(truth, said)
        self._count(labels, said)
        rows = task.picked(labels.clamp(min=0), said)
        part = said if rows is None else said.at(rows)
        own = labels if rows is None else labels[rows]
        features = part.features.float()
        if not torch.isfinite(features).all():
            raise InputError(
                "images of the source have numbers that are not finite, or make the network's "
                "features so: leave them out, since all that serves is held against them"
            )
        if not self.sums:
            width = features.shape[1]
            self.sums = [torch.zeros(task.cells, n, dtype=torch.float64) for n in (1, width, width)]
            self.moments = ClassMoments(task.cells, width)
        known = own >= 0
        cells = part.cells(own.clamp(min=0))[known].cpu()
        values = features[known].double().cpu()
        for total, value in zip(
            self.sums, (torch.ones(len(values), 1), values, values.square()), strict=True
        ):
            total.index_add_(0, cells, value.to(total))
        predicted = part.cells(part.logits.argmax(1)).cpu()
        self.moments.take(features.cpu().numpy(), predicted.numpy())
        self._keep(said.logits, labels)

    def _count(self, labels: Tensor, said: Any) -> None:
        """Add each image's shares of the classes."""
        images = len(said.served)
        each = labels.view(images, -1, self.task.groups)
        known = (each >= 0).sum(1)
        shares = [(each == label).sum(1) / known for label in range(self.task.row_classes)]
        self.shares.append(torch.stack(shares, 2).cpu())  # NaN where nothing is known

    def _keep(self, logits: Tensor, labels: Tensor) -> None:
        """Keep some rows, evenly spread, whatever their class, until there are enough."""
        known = labels >= 0
        logits, labels = logits[known].float(), labels[known]
        step = max(1, len(logits) // 4096)
        if self.rows < _ROWS:
            self.kept.append((logits[::step].cpu(), labels[::step].cpu()))
            self.rows += len(self.kept[-1][1])

    def facts(self) -> RowFacts:
        """All of it."""
        if not self.sums or not self.rows:
            raise InputError(
                f"no image of the source has a known {self.task.target}: give batches (images, "
                f"{self.task.target}s)"
            )
        count = self.sums[0].clamp(min=1)
        mean = self.sums[1] / count
        var = (self.sums[2] / count - mean.square()).clamp(min=0)
        shares = torch.cat(self.shares)
        levels = torch.linspace(0, 1, 101)
        return RowFacts(
            shares.nanmean(0).nan_to_num(0.0).flatten(),
            mean.float(),
            var.float(),
            self.moments.separation(),
            shares.flatten(1).nanquantile(levels, 0).nan_to_num(0.0),
            torch.cat([logits for logits, _ in self.kept]),
            torch.cat([labels for _, labels in self.kept]),
        )
