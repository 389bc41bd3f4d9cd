"""Metrics by subgroup, of groups instead of images, and with intervals: what ``stream_metrics`` says, asked more closely."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tta.errors import InputError
from tta.metrics import stream_metrics

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
        ``stream_metrics``, and where asked for ``subgroups`` ({column: {value: metrics, and the number of ``images`` or
        groups}}), ``worst`` ({column: the value of the lowest balanced accuracy, and that}) and ``intervals``.
    """
    if aggregate:
        first, probabilities, labels = _pooled(probabilities, labels, groups, domains)
        domains, groups = [domains[row] for row in first.tolist()], groups[first]
        columns = {name: values[first] for name, values in columns.items()}
    metrics = stream_metrics(probabilities, labels, class_names, domains)
    if not metrics:
        return {}
    if aggregate:  # groups have no place in the stream
        for part in (metrics, *metrics["domains"].values()):
            part.pop("last_quarter", None)
        metrics["scored"] = f"{len(labels)} groups"
    if columns:
        metrics["subgroups"] = {
            name: _by_value(probabilities, labels, class_names, of) for name, of in columns.items()
        }
        metrics["worst"] = {name: _worst(parts) for name, parts in metrics["subgroups"].items()}
    if bootstrap:
        metrics["intervals"] = intervals(probabilities, labels, groups, bootstrap)
    return metrics


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
                f"data.aggregate=group needs one {name} a group, and group {names[code[odd[0]]]} has several: "
                "score images instead, data.aggregate=image, or make the groups smaller"
            )


def intervals(
    probabilities: Tensor, labels: Tensor, groups: Column, repeats: int, seed: int = 0
) -> dict[str, list[float]]:
    """95 % percentile intervals under resampling of whole groups, whose images are no independent evidence.

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown.
        groups: (N,).
        repeats: resamples.
        seed: the same seed gives the same intervals.

    Returns:
        [low, high] in percent of ``accuracy``, ``balanced_accuracy`` and ``auroc`` (macro), over the classes in a resample.
    """
    known = (labels >= 0).numpy()
    truth, scored = labels.numpy()[known], probabilities.double().numpy()[known]
    classes = scored.shape[1]
    names, code = np.unique(groups[known], return_inverse=True)
    cell = truth * classes + scored.argmax(1)
    ranks = [np.unique(scored[:, label], return_inverse=True)[1] for label in range(classes)]
    rng = np.random.default_rng(seed)
    drawn = np.full((repeats, 3), np.nan)
    for row in drawn:
        weight = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[code]
        confusion = np.bincount(cell, weight, classes**2).reshape(classes, classes)
        support = confusion.sum(1)
        hits, present = confusion.diagonal(), support > 0
        areas = [_area(rank, truth == label, weight) for label, rank in enumerate(ranks)]
        defined = [area for area in areas if area is not None]
        row[:] = (
            hits.sum() / support.sum(),
            (hits[present] / support[present]).mean(),
            np.mean(defined or [np.nan]),
        )
    measures = ("accuracy", "balanced_accuracy", "auroc")
    ends = {
        name: 100 * np.nanpercentile(v, [2.5, 97.5])
        for name, v in zip(measures, drawn.T, strict=True)
        if (v == v).any()
    }
    return {name: [round(float(end), 4) for end in pair] for name, pair in ends.items()}


def _area(rank: Column, positive: Column, weight: Column) -> float | None:
    """Weighted area under the ROC curve, ties counted half; None without positives or negatives."""
    above = np.bincount(rank, weight * positive)
    below = np.bincount(rank, weight * ~positive, minlength=len(above))
    total = above.sum() * below.sum()
    return float((above * (below.cumsum() - below / 2)).sum() / total) if total else None


def _pooled(
    probabilities: Tensor, labels: Tensor, groups: Column, domains: Sequence[str]
) -> tuple[npt.NDArray[np.int64], Tensor, Tensor]:
    """First image, mean probabilities and label of each group in each domain, in order of first appearance."""
    keys: dict[tuple[str, str], int] = {}
    of = [keys.setdefault(pair, len(keys)) for pair in zip(groups.tolist(), domains, strict=True)]
    code, count = torch.tensor(of), len(keys)
    total = torch.zeros(count, probabilities.shape[1]).index_add_(0, code, probabilities)
    first = np.empty(count, dtype=np.int64)
    first[of[::-1]] = np.arange(len(of))[::-1]
    label = torch.full((count,), -1).scatter_reduce_(0, code, labels, "amax")
    return first, total / torch.bincount(code, minlength=count)[:, None], label


def _by_value(
    probabilities: Tensor, labels: Tensor, class_names: Sequence[str], values: Column
) -> dict[str, Any]:
    named = np.array([str(value) or _UNKNOWN for value in values.tolist()])
    parts = {}
    for value in sorted(set(named.tolist())):
        rows = torch.from_numpy(named == value)
        part = stream_metrics(
            probabilities[rows], labels[rows], class_names, [""] * int(rows.sum())
        )
        for key in ("domains", "last_quarter"):
            part.pop(key, None)
        parts[value] = {"images": int(rows.sum()), **part}
    return parts


def _worst(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known = {
        value: part["balanced_accuracy"]
        for value, part in parts.items()
        if "balanced_accuracy" in part
    }
    value = min(known, key=lambda name: known[name])
    return {"group": value, "balanced_accuracy": known[value]}
