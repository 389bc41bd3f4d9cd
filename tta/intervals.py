"""95 % intervals under resampling of whole groups, whose images are no independent evidence.

Every figure of a run is resampled by the same draws, so that differences between models are paired:
what makes a resample hard for one makes it hard for the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.float64]
Column = npt.NDArray[Any]

#: Groups from which on an interval says something: of 20, one more or less right moves a share by 5
#: points, and its interval spans up to 45.
FEW = 20
#: Resamples, times groups, that are held at once: 128 MiB.
_HELD = 2**24
#: Ends of an interval, in percent.
ENDS = (2.5, 97.5)


def intervals(
    probabilities: Tensor,
    labels: Tensor,
    groups: Column,
    repeats: int,
    seed: int = 0,
    class_names: Sequence[str] = (),
    areas: bool = True,
) -> dict[str, Any]:
    """Percentile intervals of what a set of predictions is worth.

    Args:
        probabilities: (N, C).
        labels: (N,), -1 where unknown.
        groups: (N,).
        repeats: resamples.
        seed: the same seed gives the same intervals.
        class_names: names of the C classes; none: no interval by class.
        areas: whether to resample the AUROC too, which takes most of the time.

    Returns:
        [low, high] in percent of ``accuracy``, ``balanced_accuracy`` and ``auroc`` (macro) over the
        classes in a resample, and of each class's ``sensitivity``; empty where there are no two
        groups to draw from.
    """
    known = (labels >= 0).numpy()
    truth, scored = labels.numpy()[known], probabilities.double().numpy()[known]
    names, code = np.unique(groups[known], return_inverse=True)
    if len(names) < 2:
        return {}
    classes = scored.shape[1]
    hits, support = _by_group(scored.argmax(1), truth, code, classes)
    ranks = [np.unique(scored[:, label], return_inverse=True)[1] for label in range(classes)]
    drawn: dict[str, list[Numbers]] = {}
    for weights in draws(len(names), repeats, seed):
        recalls, shares = _recalls(weights, hits, support)
        parts = {"accuracy": shares, "balanced_accuracy": _mean(recalls)}
        if areas:
            parts["auroc"] = np.array([_mean_area(ranks, truth, row[code]) for row in weights])
        parts |= {f"of {label}": recalls[:, label] for label in range(len(class_names))}
        for name, values in parts.items():
            drawn.setdefault(name, []).append(values)
    ends = {name: _interval(np.concatenate(values)) for name, values in drawn.items()}
    with_class = (support > 0).sum(0)
    fewest = int(with_class[with_class > 0].min())
    by_class = {
        name: _opened(ends.pop(f"of {label}"), int(with_class[label]))
        for label, name in enumerate(class_names)
    }
    ends["accuracy"] = _opened(ends["accuracy"], len(names))
    ends["balanced_accuracy"] = _opened(ends["balanced_accuracy"], fewest)
    found: dict[str, Any] = {name: pair for name, pair in ends.items() if pair is not None}
    if class_names:
        found["sensitivity"] = {name: pair for name, pair in by_class.items() if pair is not None}
    return found


def difference(
    predictions: Tensor,
    others: Tensor,
    labels: Tensor,
    groups: Column,
    classes: int,
    repeats: int,
    seed: int = 0,
) -> list[float] | None:
    """The paired interval of a difference of balanced accuracies.

    Args:
        predictions: (N,) classes that a model says.
        others: (N,) those of the model that it is held against.
        labels: (N,), -1 where unknown.
        groups: (N,).
        classes: C.
        repeats: resamples.
        seed: that of ``intervals`` draws the same groups.

    Returns:
        [low, high] in points; None where there are no two groups to draw from.
    """
    known = (labels >= 0).numpy()
    names, code = np.unique(groups[known], return_inverse=True)
    if len(names) < 2:
        return None
    truth = labels.numpy()[known]
    both = [_by_group(said.numpy()[known], truth, code, classes) for said in (predictions, others)]
    gaps = []
    for weights in draws(len(names), repeats, seed):
        ours, theirs = (_mean(_recalls(weights, hits, support)[0]) for hits, support in both)
        gaps.append(ours - theirs)
    return _interval(np.concatenate(gaps))


def median_interval(
    values: Sequence[float] | Numbers, repeats: int, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of a median, as of paired differences.

    >>> median_interval([3.0, 1.0, 2.0, 4.0, 5.0, 6.0], repeats=1000)
    (2.0, 5.5)

    Args:
        values: (N,), each drawn by itself.
        repeats: resamples.
        seed: the same seed gives the same interval.

    Returns:
        Low and high end, in the values' own unit; None of fewer than two.
    """
    count = len(values)
    if count < 2:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    medians = []
    for weights in draws(count, repeats, seed):
        # The value at a place of a resample: the first below or at which so many were drawn.
        up_to = weights.cumsum(1)
        middle = [ordered[(up_to > place).argmax(1)] for place in ((count - 1) // 2, count // 2)]
        medians.append(np.mean(middle, axis=0))
    low, high = np.percentile(np.concatenate(medians), ENDS)
    return float(low), float(high)


def paired(
    predictions: Tensor, others: Tensor, labels: Tensor, groups: Column, classes: int, repeats: int
) -> list[float]:
    """``difference``, honest in small samples too.

    Resamples of a few groups cannot show what happened to none of them. So each class gets two
    groups more, of the mean size, of which one speaks for either model (after Agresti & Min,
    Statistics in Medicine 2005, for matched proportions): of 16 images 2 that differ settle
    nothing, and of 500 the two are hardly felt.

    Args:
        predictions: (N,) classes that a model says.
        others: (N,) those of the model that it is held against.
        labels: (N,), -1 where unknown.
        groups: (N,).
        classes: C.
        repeats: resamples.

    Returns:
        [low, high] in points.
    """
    present = torch.unique(labels[labels >= 0])
    names = np.unique(groups, return_inverse=True)[1]
    sizes = [_mean_size(names[(labels == label).numpy()]) for label in present.tolist()]
    right = present.repeat_interleave(torch.tensor(sizes))
    wrong, added = (right + 1) % classes, names.max(initial=0) + 1 + right.numpy()
    ends = difference(
        torch.cat([predictions, right, wrong]),
        torch.cat([others, wrong, right]),
        torch.cat([labels, right, right]),
        np.concatenate([names, added, added + classes]),
        classes,
        repeats,
    )
    assert ends is not None, "two groups were added"
    return ends


def _mean_size(groups: Column) -> int:
    """Images a group."""
    return round(len(groups) / len(np.unique(groups)))


def draws(groups: int, repeats: int, seed: int) -> Iterator[Numbers]:
    """How often each group is drawn, (resamples, G) at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _HELD // groups)
    for start in range(0, repeats, at_once):
        rows = [
            np.bincount(rng.integers(groups, size=groups), minlength=groups)
            for _ in range(min(at_once, repeats - start))
        ]
        yield np.stack(rows).astype(np.float64)


def _by_group(said: Column, truth: Column, code: Column, classes: int) -> tuple[Numbers, Numbers]:
    """(G, C) images of each class that are right, and (G, C) that there are, in each group."""
    cell = code * classes + truth
    size = (int(code.max()) + 1) * classes
    support = np.bincount(cell, minlength=size).reshape(-1, classes).astype(np.float64)
    hits = np.bincount(cell[said == truth], minlength=size).reshape(-1, classes).astype(np.float64)
    return hits, support


def _recalls(weights: Numbers, hits: Numbers, support: Numbers) -> tuple[Numbers, Numbers]:
    """(R, C) sensitivities, NaN of classes that were not drawn, and (R,) accuracies of
    resamples.
    """
    right, there = weights @ hits, weights @ support
    shares = right.sum(1) / there.sum(1)
    return np.divide(right, there, out=np.full_like(right, np.nan), where=there > 0), shares


def _mean(recalls: Numbers) -> Numbers:
    """(R,) balanced accuracies over the classes that were drawn."""
    means: Numbers = np.nanmean(recalls, 1)
    return means


def _mean_area(ranks: Sequence[Column], truth: Column, weight: Column) -> float:
    areas = [_area(rank, truth == label, weight) for label, rank in enumerate(ranks)]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined or [np.nan]))


def _area(rank: Column, positive: Column, weight: Column) -> float | None:
    """Weighted area under the ROC curve, ties counted half; None without positives or negatives."""
    above = np.bincount(rank, weight * positive)
    below = np.bincount(rank, weight * ~positive, minlength=len(above))
    total = above.sum() * below.sum()
    return float((above * (below.cumsum() - below / 2)).sum() / total) if total else None


def _interval(values: Numbers) -> list[float] | None:
    """[low, high] in percent; None where it was never defined."""
    if np.isnan(values).all():
        return None
    return [round(float(end), 4) for end in 100 * np.nanpercentile(values, ENDS)]


def _opened(pair: list[float] | None, groups: int) -> list[float] | None:
    """An interval that is none, since all are right or all wrong and no resample can differ: the
    exact one of a share.

    Args:
        pair: in percent.
        groups: of which the share is taken.
    """
    margin = round(100 * (1 - 0.025 ** (1 / max(groups, 1))), 4)
    if pair == [100, 100]:
        return [100 - margin, 100.0]
    return [0.0, margin] if pair == [0, 0] else pair
