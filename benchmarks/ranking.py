"""Methods and guards in order of what they are worth against doing nothing, with intervals; pure
but for a seeded draw.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.benchmarks.kept import Numbers, of_streams, unpacked
from holdfast.benchmarks.summary import OURS, better
from holdfast.benchmarks.tables import CELL_KEYS, STREAM_KEYS, Row, key_of

#: Points around the control within which a cell is a tie.
TOLERANCE = 1.0
#: Numbers that a block of the bootstrap holds at once.
_BLOCK = 4_000_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A method, alone or under a guard, over all its cells; in points of balanced accuracy.

    Attributes:
        method: its label.
        policy: "off" where it is left alone.
        cells: how many.
        score: mean.
        gain: mean difference from the control of the same streams.
        interval: 95 % of that under resampling; None where there was nothing to resample.
        regret: mean of the better of source and control minus the score.
        worst: the largest of these.
        outcomes: cells won, tied and lost against the control.
    """

    method: str
    policy: str
    cells: int
    score: float
    gain: float
    interval: tuple[float, float] | None
    regret: float
    worst: float
    outcomes: tuple[int, int, int]


def ranked(
    rows: Sequence[Row], predictions: Iterable[Row], repeats: int = 500, seed: int = 0
) -> list[Entry]:
    """All methods, alone and guarded, the largest gain first.

    The intervals come from resampling seeds, with all that belongs to each, and within each stream
    images, of which one may show several times; the same draw serves method and control, so
    differences are paired.

    Args:
        rows: results with their references.
        predictions: rows of ``predictions.csv``; a cell without counts as it is, and only its seed
            is drawn.
        repeats: resamples.
        seed: of the draws.
    """
    runs = _runs(rows)
    seeds = sorted({row["seed"] for row in rows})
    rng = np.random.default_rng(seed)
    weights = (
        rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=repeats)
        if seeds
        else np.empty((0, 0))
    )
    drawn, images = _drawn(runs, list(predictions), repeats, rng)
    entries = []
    for (method, policy), cells in _by_entry(runs).items():
        gains = [row["score"] - row["control"] for row in cells]
        differences = np.stack(
            [
                drawn.get(_key(row), np.full(repeats, gain))
                for row, gain in zip(cells, gains, strict=True)
            ]
        )
        weight = weights[:, [seeds.index(row["seed"]) for row in cells]].T.astype(float)
        total = weight.sum(0)
        means = (differences * weight).sum(0)[total > 0] / total[total > 0]
        uncertain = len(means) and (images or len(seeds) > 1)
        ends = np.percentile(means, [2.5, 97.5]) if uncertain else None
        entries.append(
            Entry(
                method=method,
                policy=policy,
                cells=len(cells),
                score=fmean(row["score"] for row in cells),
                gain=fmean(gains),
                interval=None if ends is None else (float(ends[0]), float(ends[1])),
                regret=fmean(better(row) - row["score"] for row in cells),
                worst=max(better(row) - row["score"] for row in cells),
                outcomes=outcomes(gains),
            )
        )
    return sorted(entries, key=lambda entry: (-entry.gain, entry.method, entry.policy))


def outcomes(gains: Iterable[float]) -> tuple[int, int, int]:
    """How many cells are won, tied and lost: more than ``TOLERANCE`` points above the control,
    about as good, or below.
    """
    signs = [(gain > TOLERANCE) - (gain < -TOLERANCE) for gain in gains]
    return signs.count(1), signs.count(0), signs.count(-1)


def resampled(
    labels: Numbers,
    images: Numbers,
    right: Mapping[Any, npt.NDArray[np.bool_]],
    repeats: int,
    rng: np.random.Generator,
) -> dict[Any, Floats]:
    """Balanced accuracies in percent of several models under the same resamples of a stream's
    images.

    Args:
        labels: (N,) true classes, -1 where unknown.
        images: (N,) which image each is; one that shows several times is drawn with all its
            showings.
        right: whether each prediction is right (N,), by the model's name.
        repeats: resamples.
        rng: of the draws.

    Returns:
        (repeats,) by name, over the classes in a resample.
    """
    known = labels >= 0
    names, code = np.unique(images[known], return_inverse=True)
    truth = labels[known]
    classes = np.unique(truth)
    # Sums over each image's showings, so that the draws meet images alone.
    member = np.stack([np.bincount(code, truth == label, len(names)) for label in classes], axis=1)
    hits = {
        name: np.stack(
            [np.bincount(code, (truth == label) & ok[known], len(names)) for label in classes],
            axis=1,
        )
        for name, ok in right.items()
    }
    scores: dict[Any, list[Floats]] = {name: [] for name in right}
    for size in _blocks(repeats, len(names)):
        weight = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size).astype(
            np.float64
        )
        support = weight @ member
        with np.errstate(invalid="ignore"):
            for name, hit in hits.items():
                scores[name].append(100 * np.nanmean((weight @ hit) / support, axis=1))
    return {name: np.concatenate(parts) for name, parts in scores.items()}


def _runs(rows: Sequence[Row]) -> list[Row]:
    """A row a run: each method left alone once a cell, then under each guard."""
    alone = {
        key_of(row, CELL_KEYS): {**row, "policy": "off", "score": row["unguarded"]} for row in rows
    }
    return [*alone.values(), *({**row, "score": row["guarded"]} for row in rows)]


def _by_entry(runs: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    entries: dict[tuple[str, str], list[Row]] = {}
    for row in runs:
        entries.setdefault((row["method"], row["policy"]), []).append(row)
    return entries


def _drawn(
    runs: Sequence[Row], predictions: Sequence[Row], repeats: int, rng: np.random.Generator
) -> tuple[dict[tuple[str, ...], Floats], bool]:
    """Differences (repeats,) from the control under resampling, by the run's key; and whether there
    are any.
    """
    said = {_key(row): row["predictions"] for row in predictions if row["method"] is not None}
    wanted: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in runs:
        if _key(row) in said:
            wanted.setdefault(key_of(row, STREAM_KEYS), []).append(_key(row))
    differences = {}
    for stream, parts in of_streams(predictions).items():
        labels = parts["labels"]
        if stream not in wanted or not (labels >= 0).any():
            continue
        right = {key: unpacked(said[key]) == labels for key in wanted[stream]}
        scores = resampled(
            labels, parts["images"], {"control": parts["control"] == labels, **right}, repeats, rng
        )
        differences.update({key: scores[key] - scores["control"] for key in right})
    return differences, bool(differences)


def _key(row: Row) -> tuple[str, ...]:
    return key_of(row, (*CELL_KEYS, "policy"))


def _blocks(repeats: int, width: int) -> Iterator[int]:
    """Sizes of the blocks in which so many rows of this width are worked off."""
    size = max(1, _BLOCK // max(width, 1))
    for start in range(0, repeats, size):
        yield min(size, repeats - start)


def title_of(policy: str) -> str:
    """How a table calls a guard."""
    return {"off": "none", OURS: "ours"}.get(policy, policy.replace("_", " "))
