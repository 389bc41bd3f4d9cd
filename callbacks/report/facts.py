"""What a run's report tells, and what its sections share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.report import page
from holdfast.callbacks.report.figures import class_colors
from holdfast.callbacks.report.observe import AdaptedObserver
from holdfast.callbacks.report.unupdated import StreamAnswers, Unupdated
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.intervals import FEW
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.worth import Units

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
        metrics: content of ``metrics.json``, held against source and control.
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
    parts: int = 1


class RunView:
    """The facts as the sections look at them.

    Attributes:
        facts: all of them.
        names: of the classes.
        labels: (N,) true classes of the images, -1 where unknown.
        labelled: whether there is any.
        models: what each model said of the images, ``served`` last.
        served: what left.
        units: what figures are taken over: images or groups.
        scored: what each model said of these.
        colors: of the classes that are shown by themselves.
    """

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.names = tuple(facts.checkpoint.class_names)
        self.labels = facts.labels
        self.labelled = bool((self.labels >= 0).any())
        self.models: dict[str, StreamAnswers] = {}
        if facts.unupdated is not None:
            self.models |= {"source": facts.unupdated.source, "control": facts.unupdated.control}
        self.models["served"] = self.served = StreamAnswers(facts.probabilities)
        self.units = Units.of(
            facts.metrics.get("level", "image"),
            *(facts.labels, facts.groups, facts.domains, facts.columns),
            {name: answers.probabilities for name, answers in self.models.items()},
        )
        self.scored = {name: StreamAnswers(said) for name, said in self.units.said.items()}
        shown = torch.cat([self.served.predictions, self.labels[self.labels >= 0]])
        self.colors = class_colors(torch.bincount(shown, minlength=len(self.names)))

    def score(self, name: str) -> float:
        """Balanced accuracy of a model in percent, over all that is scored."""
        return balanced_accuracy(self.scored[name].predictions, self.units.labels, len(self.names))

    def legend(self) -> str:
        """The classes' colours."""
        named = {
            page.shortened(self.names[label], 40): color for label, color in self.colors.items()
        }
        return page.legend(
            named if len(self.names) == len(self.colors) else {**named, "others": page.SOURCE}
        )


def gap(part: Mapping[str, Any], other: str) -> str | None:
    """How much better what was served is than another model, with its interval where groups are no
    few.

    Args:
        part: metrics of all or of some, held against the other.
        other: name of the model.

    Returns:
        Points, ``+1.2 (-0.3 to +2.5)``; None where nothing is labelled.
    """
    found = part.get("against", {}).get(other)
    if found is None:
        return None
    text = page.signed(found["difference"])
    if part["groups"] < FEW:
        return text
    return f"{text} ({' to '.join(map(page.signed, found['interval']))})"
