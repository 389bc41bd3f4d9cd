"""What a run's report tells, and what its sections share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from callbacks.report import page
from callbacks.report.figures import class_colors
from callbacks.report.observe import AdaptedObserver
from callbacks.report.unupdated import Answers, Unupdated
from callbacks.verdict import Thresholds
from tta.checkpoint import SourceCheckpoint
from tta.metrics import balanced_accuracy

#: Rows of a table, at most.
ROWS = 40


@dataclass(frozen=True)
class RunFacts:
    """All that the page tells.

    Attributes:
        name: of the run.
        settings: the configuration as text, ``auto`` resolved.
        about: seeds, data and the like, by what they are.
        checkpoint: the source.
        metrics: content of ``metrics.json``.
        rows: the trace, a dictionary a batch.
        events: what happened.
        probabilities: (N, C) as served, in stream order.
        labels: (N,) true classes, -1 where unknown.
        domains: (N,) domain of each image.
        columns: (N,) subgroup of each image, by the column's name.
        observer: the adapted model's answers and features.
        thresholds: of our guard; None without it.
        sums: after each batch, by which it alarms; empty without it.
        unupdated: source and control on the stream; None where nothing else than the source served.
        parts: processes that shared each batch.
    """

    name: str
    settings: str
    about: Mapping[str, str]
    checkpoint: SourceCheckpoint
    metrics: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    probabilities: Tensor
    labels: Tensor
    domains: Sequence[str]
    columns: Mapping[str, npt.NDArray[Any]]
    observer: AdaptedObserver
    thresholds: Thresholds | None
    sums: Sequence[Mapping[str, float]]
    unupdated: Unupdated | None
    parts: int = 1


class View:
    """The facts as the sections look at them.

    Attributes:
        facts: all of them.
        names: of the classes.
        labels: (N,) true classes, -1 where unknown.
        labelled: whether there is any.
        models: what each model said, ``served`` last.
        served: what left.
        colors: of the classes that are shown by themselves.
    """

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.names = tuple(facts.checkpoint.class_names)
        confidences, predictions = facts.probabilities.max(1)
        self.labels = facts.labels
        self.labelled = bool((self.labels >= 0).any())
        self.models: dict[str, Answers] = {}
        if facts.unupdated is not None:
            self.models |= {"source": facts.unupdated.source, "control": facts.unupdated.control}
        self.models["served"] = self.served = Answers(predictions, confidences)
        shown = torch.cat([predictions, self.labels[self.labels >= 0]])
        self.colors = class_colors(torch.bincount(shown, minlength=len(self.names)))

    def score(self, name: str, rows: Tensor | None = None) -> float:
        """Balanced accuracy of a model in percent, over all images or some."""
        rows = torch.ones(len(self.labels), dtype=torch.bool) if rows is None else rows
        return balanced_accuracy(
            self.models[name].predictions[rows], self.labels[rows], len(self.names)
        )

    def legend(self) -> str:
        """The classes' colours."""
        named = {
            page.shortened(self.names[label], 40): color for label, color in self.colors.items()
        }
        return page.legend(
            named if len(self.names) == len(self.colors) else {**named, "others": page.SOURCE}
        )
