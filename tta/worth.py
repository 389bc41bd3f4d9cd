"""What adapting was worth: what was served, held against models that learn nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.tta.intervals import paired
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.scores import means_of, members, named_values

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Units:
    """What is scored and counted once, images or groups of them, and what models say of it.

    Attributes:
        unit: what it is: image or group.
        labels: (M,) true classes, -1 where unknown.
        groups: (M,) patient or slide of each.
        domains: (M,) domain of each.
        columns: (M,) subgroup of each, by the column's name.
        said: (M, C) probabilities by the model's name.
    """

    unit: str
    labels: Tensor
    groups: Column
    domains: Column
    columns: Mapping[str, Column]
    said: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        level: str,
        labels: Tensor,
        groups: Column,
        domains: Sequence[str],
        columns: Mapping[str, Column],
        said: Mapping[str, Tensor],
    ) -> "Units":
        """Images as they are, or put together by group.

        Args:
            level: image or group.
            labels: (N,) of images, and so on.
            groups: (N,).
            domains: (N,).
            columns: (N,) by name.
            said: (N, C) by name.
        """
        named = np.array(domains, dtype=object)
        if level != "group":
            return cls("image", labels, groups, named, columns, said)
        first, code = members(groups, domains)
        return cls(
            "group",
            torch.full((len(first),), -1).scatter_reduce_(0, code, labels, "amax"),
            groups[first],
            named[first],
            {name: values[first] for name, values in columns.items()},
            {name: means_of(values, code) for name, values in said.items()},
        )

    def parts(self) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.bool_]]]:
        """All of it, each domain, and each value of each column: where its metrics stand, and a
        mask (M,).
        """
        yield (), np.ones(len(self.labels), dtype=np.bool_)
        splits: dict[tuple[str, ...], Column] = {("domains",): self.domains}
        splits |= {("subgroups", name): named_values(of) for name, of in self.columns.items()}
        for place, values in splits.items():
            for value in dict.fromkeys(values.tolist()):
                yield (*place, value), values == value


def held_against(
    metrics: Mapping[str, Any], units: Units, others: Sequence[str], repeats: int
) -> dict[str, Any]:
    """Metrics that say as well, of all and of each part, how others would have done.

    Args:
        metrics: from ``tta.scores.scores``.
        units: what they are taken over, with what ``served`` and the others say.
        others: names of models.
        repeats: resamples of groups for the intervals.

    Returns:
        The metrics, and in all and in each part that has a label ``against``: by the other's name
        its ``balanced_accuracy``, the ``difference`` to it in points, and its 95 % ``interval``.
    """
    found = _copied(metrics)
    if "level" not in metrics:  # nothing is labelled
        return found
    for place, member in units.parts():
        part = found
        for key in place:
            part = part[key]
        if "balanced_accuracy" in part:  # something is labelled
            part["against"] = {name: _against(units, name, member, repeats) for name in others}
    return found


def _against(units: Units, name: str, member: Column, repeats: int) -> dict[str, Any]:
    rows = torch.from_numpy(member)
    labels, groups = units.labels[rows], units.groups[member]
    classes = units.said[name].shape[1]
    ours, theirs = (units.said[model][rows].argmax(1) for model in ("served", name))
    score, other = (balanced_accuracy(said, labels, classes) for said in (ours, theirs))
    return {
        "balanced_accuracy": round(other, 4),
        "difference": round(score - other, 4),
        "interval": paired(ours, theirs, labels, groups, classes, repeats),
    }


def _copied(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The same, which can be added to."""
    return {
        key: _copied(value) if isinstance(value, Mapping) else value
        for key, value in metrics.items()
    }
