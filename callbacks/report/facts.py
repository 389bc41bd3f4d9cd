"""What a run's report tells, and what its sections share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.report import page
from holdfast.callbacks.report.figures import class_colors
from holdfast.callbacks.report.observe import AdaptedObserver
from holdfast.callbacks.report.unupdated import Answers, Unupdated
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.intervals import FEW, difference
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.scores import pooled

Column = npt.NDArray[Any]

#: Rows of a table, at most.
ROWS = 40
_COMPARED = ("served", "control")


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
        groups: (N,) patient or slide of each image.
        columns: (N,) subgroup of each image, by the column's name.
        observer: the adapted model's answers and features.
        levels: of our guard's signals; None without it.
        sums: after each batch, by which it alarms; empty without it.
        unupdated: source and control on the stream; None where nothing else than the source served.
        repeats: resamples for intervals.
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
    groups: npt.NDArray[Any]
    columns: Mapping[str, npt.NDArray[Any]]
    observer: AdaptedObserver
    levels: Levels | None
    sums: Sequence[Mapping[str, float]]
    unupdated: Unupdated | None
    repeats: int
    parts: int = 1


@dataclass(frozen=True)
class Scored:
    """What is scored and counted once, images or groups of them, as ``metrics.json`` has it.

    Attributes:
        unit: what it is: image or group.
        labels: (M,) true classes, -1 where unknown.
        groups: (M,) patient or slide of each.
        domains: (M,) domain of each.
        columns: (M,) subgroup of each, by the column's name.
        models: what each model said, ``served`` last.
    """

    unit: str
    labels: Tensor
    groups: Column
    domains: Column
    columns: Mapping[str, Column]
    models: Mapping[str, Answers]


class View:
    """The facts as the sections look at them.

    Attributes:
        facts: all of them.
        names: of the classes.
        labels: (N,) true classes of the images, -1 where unknown.
        labelled: whether there is any.
        models: what each model said of the images, ``served`` last.
        served: what left.
        scored: what figures are taken over.
        colors: of the classes that are shown by themselves.
    """

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.names = tuple(facts.checkpoint.class_names)
        self.labels = facts.labels
        self.labelled = bool((self.labels >= 0).any())
        self.models: dict[str, Answers] = {}
        if facts.unupdated is not None:
            self.models |= {"source": facts.unupdated.source, "control": facts.unupdated.control}
        self.models["served"] = self.served = Answers(facts.probabilities)
        self.scored = _scored(facts, self.models)
        shown = torch.cat([self.served.predictions, self.labels[self.labels >= 0]])
        self.colors = class_colors(torch.bincount(shown, minlength=len(self.names)))

    def score(self, name: str, rows: Tensor | None = None) -> float:
        """Balanced accuracy of a model in percent, over all that is scored or some, by a mask
        (M,).
        """
        rows = torch.ones(len(self.scored.labels), dtype=torch.bool) if rows is None else rows
        return balanced_accuracy(
            self.scored.models[name].predictions[rows], self.scored.labels[rows], len(self.names)
        )

    def gap(self, rows: Tensor | None = None) -> str | None:
        """Balanced accuracy of what was served against the control's, with its interval where
        groups are no few.

        None: there is no control, or no label.
        """
        if "control" not in self.models or not self.labelled:
            return None
        rows = torch.ones(len(self.scored.labels), dtype=torch.bool) if rows is None else rows
        if not (self.scored.labels[rows] >= 0).any():
            return None
        text = page.signed(self.score("served", rows) - self.score("control", rows))
        groups, labels = self.scored.groups[rows.numpy()], self.scored.labels[rows]
        if len(np.unique(groups[(labels >= 0).numpy()])) < FEW:
            return text
        served, control = (self.scored.models[name].predictions[rows] for name in _COMPARED)
        ends = difference(
            *(served, control, labels, groups),
            classes=len(self.names),
            repeats=self.facts.repeats,
        )
        return text if ends is None else f"{text} ({' to '.join(map(page.signed, ends))})"

    def legend(self) -> str:
        """The classes' colours."""
        named = {
            page.shortened(self.names[label], 40): color for label, color in self.colors.items()
        }
        return page.legend(
            named if len(self.names) == len(self.colors) else {**named, "others": page.SOURCE}
        )


def _scored(facts: RunFacts, models: Mapping[str, Answers]) -> Scored:
    domains = np.array(facts.domains, dtype=object)
    if facts.metrics.get("level") != "group":
        return Scored("image", facts.labels, facts.groups, domains, facts.columns, models)
    together = {
        name: pooled(said.probabilities, facts.labels, facts.groups, facts.domains)
        for name, said in models.items()
    }
    first, _, _, labels = together["served"]
    return Scored(
        "group",
        labels,
        facts.groups[first],
        domains[first],
        {name: values[first] for name, values in facts.columns.items()},
        {name: Answers(means) for name, (_, _, means, _) in together.items()},
    )
