"""Metrics by subgroup, of groups instead of images, and with intervals: what ``stream_metrics``
says, asked more closely.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.intervals import FEW, intervals
from holdfast.tta.metrics import stream_metrics

Column = npt.NDArray[Any]

_UNKNOWN = "(unknown)"


def scores(
    probabilities: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    domains: Sequence[str],
    *,
    groups: Column,
    columns: Mapping[str, Column],
    aggregate: bool = False,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """``stream_metrics``, and what else was asked for; empty where nothing is labelled.

    Args:
        probabilities: (N, C) in stream order.
        labels: (N,) true classes, -1 where unknown.
        class_names: names of the C classes.
        domains: (N,) domain of each image.
        groups: (N,) patient or slide of each image.
        columns: (N,) subgroup of each image, by the column's name.
        aggregate: score each group once in each domain, by the mean probabilities of its images.
        bootstrap: resamples of groups for 95 % intervals; 0: none.

    Returns:
        ``stream_metrics``, and

        - ``level``: what was scored and counted once, image or group;
        - ``images`` and ``groups``: how many were scored, in all and in each part, and ``few``
          where there are fewer than ``FEW`` groups, of which figures say little;
        - where asked for ``subgroups`` ({column: {value: metrics}}, values in their own order) and
          ``worst`` ({column: the value of the lowest balanced accuracy, and that, among those of
          ``FEW`` groups or more where there are any});
        - where asked for ``intervals``, of all and of each part; of the AUROC of all only.
    """
    images = (labels >= 0).long()
    if aggregate:
        first, members, probabilities, labels = pooled(probabilities, labels, groups, domains)
        images = torch.zeros(len(labels), dtype=torch.long).index_add_(0, members, images)
        domains, groups = [domains[row] for row in first.tolist()], groups[first]
        columns = {name: values[first] for name, values in columns.items()}
    metrics = stream_metrics(probabilities, labels, class_names, domains)
    if not metrics:
        return {}
    level = "group" if aggregate else "image"
    scored = _Scored(level, probabilities, labels, images, groups, tuple(class_names), bootstrap)
    by_domain = metrics.pop("domains")
    found: dict[str, Any] = {"level": level, **scored.described(metrics)}
    names = np.asarray(domains)
    found["domains"] = {
        name: scored.part(names == name).described(part, areas=False)
        for name, part in by_domain.items()
    }
    if columns:
        found["subgroups"] = {name: _by_value(scored, of) for name, of in columns.items()}
        found["worst"] = {name: worst_of(parts) for name, parts in found["subgroups"].items()}
    return found


def check_groups(labels: Column, groups: Column, columns: Mapping[str, Column]) -> None:
    """Refuse to score groups whose images differ in what a group is scored by.

    Args:
        labels: (N,) true classes, -1 where unknown.
        groups: (N,) group of each image.
        columns: (N,) columns that metrics are split by.

    Raises:
        InputError: a group has several classes, or several values of a column.
    """
    known = labels >= 0
    for name, values, of in [
        ("label", labels[known], groups[known]),
        *((n, v, groups) for n, v in columns.items()),
    ]:
        if not len(values):
            continue
        names, code = np.unique(of, return_inverse=True)
        _, value = np.unique(values, return_inverse=True)
        first = np.empty(len(names), dtype=np.int64)
        first[code[::-1]] = value[::-1]
        odd = np.flatnonzero(value != first[code])
        if len(odd):
            raise InputError(
                f"data.aggregate=group needs one {name} a group, and group {names[code[odd[0]]]} "
                "has several: "
                "score images instead, data.aggregate=image, or make the groups smaller"
            )


def pooled(
    probabilities: Tensor, labels: Tensor, groups: Column, domains: Sequence[str]
) -> tuple[npt.NDArray[np.int64], Tensor, Tensor, Tensor]:
    """Images put together by group, each group once in each domain.

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown.
        groups: (N,).
        domains: (N,).

    Returns:
        In order of first appearance, of G groups: row of the first image (G,); group of each image
        (N,); mean probabilities (G, C) and labels (G,).
    """
    first, code = members(groups, domains)
    label = torch.full((len(first),), -1).scatter_reduce_(0, code, labels, "amax")
    return first, code, means_of(probabilities, code), label


def members(groups: Column, domains: Sequence[str]) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Which images are put together.

    Args:
        groups: (N,).
        domains: (N,).

    Returns:
        Of G groups, in order of first appearance, the row of the first image (G,), and the group of
        each image (N,).
    """
    keys: dict[tuple[str, str], int] = {}
    of = [keys.setdefault(pair, len(keys)) for pair in zip(groups.tolist(), domains, strict=True)]
    first = np.empty(len(keys), dtype=np.int64)
    first[of[::-1]] = np.arange(len(of))[::-1]
    return first, torch.tensor(of, dtype=torch.long)


def means_of(probabilities: Tensor, code: Tensor) -> Tensor:
    """(G, C) mean of the images of each group, from (N, C) and the group of each image (N,)."""
    counts = torch.bincount(code)
    total = torch.zeros(len(counts), probabilities.shape[1]).index_add_(0, code, probabilities)
    return total / counts[:, None]


def named_values(values: Column) -> npt.NDArray[Any]:
    """A column's values as tables call them: what is empty is unknown."""
    return np.array([str(value) or _UNKNOWN for value in values.tolist()], dtype=object)


def in_order(values: Iterable[str]) -> list[str]:
    """A column's values as a person would list them: numbers and bands by size, what is unknown
    last.
    """

    def place(value: str) -> tuple[bool, list[tuple[bool, float, str]]]:
        parts = re.split(r"(\d+)", value)
        known = [(part.isdecimal(), part) for part in parts if part]
        return value == _UNKNOWN, [
            (not number, float(part) if number else 0.0, "" if number else part)
            for number, part in known
        ]

    return sorted(values, key=place)


@dataclass(frozen=True)
class _Scored:
    """What is scored: images, or groups of them.

    Args:
        level: which of the two.
        probabilities: (M, C).
        labels: (M,), -1 where unknown.
        images: (M,) labelled images in each.
        groups: (M,).
        class_names: names of the C classes.
        bootstrap: resamples for intervals; 0: none.
    """

    level: str
    probabilities: Tensor
    labels: Tensor
    images: Tensor
    groups: Column
    class_names: tuple[str, ...]
    bootstrap: int

    def part(self, member: npt.NDArray[np.bool_]) -> "_Scored":
        """Some of it, by a mask (M,)."""
        rows = torch.from_numpy(member)
        return replace(
            self,
            probabilities=self.probabilities[rows],
            labels=self.labels[rows],
            images=self.images[rows],
            groups=self.groups[member],
        )

    def described(self, metrics: Mapping[str, Any], areas: bool = True) -> dict[str, Any]:
        """The metrics with what they are taken over, and with their intervals."""
        known = (self.labels >= 0).numpy()
        found = {**metrics}
        groups = len(np.unique(self.groups[known]))
        if self.level == "group":
            groups = int(known.sum())  # one that is in two domains is scored twice
            found.pop("last_quarter", None)  # groups have no place in the stream
        counts: dict[str, Any] = {"images": int(self.images.sum()), "groups": groups}
        if groups < FEW:
            counts["few"] = True
        if not (self.bootstrap and known.any()):
            return {**counts, **found}
        ends = intervals(
            self.probabilities,
            self.labels,
            self.groups,
            self.bootstrap,
            class_names=self.class_names,
            areas=areas,
        )
        return {**counts, **found, "intervals": ends}


def _by_value(scored: _Scored, values: Column) -> dict[str, Any]:
    named = named_values(values)
    parts = {}
    for value in in_order(set(named.tolist())):
        part = scored.part(named == value)
        metrics = stream_metrics(
            part.probabilities, part.labels, scored.class_names, [""] * len(part.labels)
        )
        for key in ("domains", "last_quarter"):
            metrics.pop(key, None)
        parts[value] = part.described(metrics, areas=False)
    return parts


def worst_of(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The value of the lowest balanced accuracy, and that; None where no part has one.

    Args:
        parts: metrics by a column's value; those of fewer than ``FEW`` groups count only if there
            are no others.
    """
    known = {value: part for value, part in parts.items() if "balanced_accuracy" in part}
    enough = {value: part for value, part in known.items() if part["groups"] >= FEW} or known
    if not enough:
        return None
    value = min(enough, key=lambda name: enough[name]["balanced_accuracy"])
    return {"group": value, "balanced_accuracy": enough[value]["balanced_accuracy"]}
