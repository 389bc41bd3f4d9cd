"""What several models make of the same streams, in pairs: means, differences from a baseline, and
tests.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from holdfast.comparing import paired
from holdfast.comparing.found import Comparison, Condition, Entry, SeedScores, counted
from holdfast.comparing.paired import FEWEST, LEVEL, Numbers
from holdfast.tta.errors import InputError
from holdfast.tta.intervals import median_interval

Row = Mapping[str, Any]
#: What names a run of a model: its condition and seed.
Key = tuple[Condition, str]
Scores = dict[Key, float]

#: Metrics, by the last part of their names, of which less is better.
LOWER = frozenset({"ece", "alarms", "resets", "broken_images", "unreadable_images", "seconds"})
#: Columns that say which run a row is of.
SEED, RUN = "seed", "run"


def compare(
    table: Sequence[Row],
    baseline: str,
    *,
    by: str = "method",
    metric: str = "balanced_accuracy",
    conditions: Sequence[str] | None = None,
    pairs: Literal["seeds", "conditions"] = "seeds",
    lower: bool | None = None,
    resamples: int = 10_000,
) -> Comparison:
    """Compare models over the conditions and seeds that all of them have.

    >>> gains = {"norm": 0, "tent": 1, "dsbr": 2}
    >>> table = [
    ...     {"method": name, "seed": seed, "balanced_accuracy": 80 + seed + gain + seed * gain / 10}
    ...     for name, gain in gains.items()
    ...     for seed in range(6)
    ... ]
    >>> found = compare(table, baseline="norm")
    >>> [(entry.name, round(entry.mean, 2), entry.rank) for entry in found.entries]
    [('dsbr', 85.0, 1.0), ('tent', 83.75, 2.0), ('norm', 82.5, 3.0)]
    >>> found.entries[0].corrected
    0.0625

    Args:
        table: a row a run, of any order, as ``DataFrame.to_dict("records")`` gives them.
        baseline: what the others are held against.
        by: column of what is compared.
        metric: column of the score.
        conditions: columns of what it met; None: all but those above, ``seed`` and ``run``.
        pairs: what is paired and ranked: each seed of each condition, or each condition, as the
            mean over its seeds.
        lower: whether less is better; None: as is usual of the metric.
        resamples: of the intervals.

    Raises:
        InputError: there is nothing to compare, or two rows are of the same run.
    """
    columns = _condition_columns(table, by, metric) if conditions is None else list(conditions)
    scores, notes = _scores(table, by, metric, columns)
    _check_baseline(baseline, list(scores))
    common, unequal = _common(scores, columns)
    blocks = _blocks(scores, common, pairs)
    lower = metric.split("/")[-1] in LOWER if lower is None else lower
    names = list(scores)
    seen = _paired(names, blocks, names.index(baseline), lower, resamples)
    entries = [
        Entry(
            name,
            runs=len(common),
            mean=fmean(scores[name][key] for key in common),
            sd=_deviation(scores[name], common),
            **seen[name],
        )
        for name in names
    ]
    tested = len(blocks) >= FEWEST
    several = tested and len(names) > 2
    return Comparison(
        by=by,
        metric=metric,
        lower=lower,
        baseline=baseline,
        entries=tuple(sorted(entries, key=lambda entry: (entry.rank, entry.name))),
        columns=tuple(columns),
        cells=_cells(scores, common),
        conditions=len({condition for condition, _ in common}),
        seeds=len({seed for _, seed in common}),
        pairs=len(blocks),
        friedman=paired.friedman(blocks) if several else None,
        critical=paired.critical_difference(len(names), len(blocks)) if several else None,
        notes=(*notes, *unequal, *_warnings(len(blocks), len(names) - 1)),
    )


def _condition_columns(table: Sequence[Row], by: str, metric: str) -> list[str]:
    """All other columns that do not hold the same in every row."""
    found = dict.fromkeys(name for row in table for name in row)
    others = [name for name in found if name not in (by, metric, SEED, RUN)]
    return [name for name in others if len({_text(row.get(name)) for row in table}) > 1]


def _scores(
    table: Sequence[Row], by: str, metric: str, columns: Sequence[str]
) -> tuple[dict[str, Scores], list[str]]:
    """Scores by name, and what is to be said of rows that have none."""
    scores: dict[str, Scores] = {}
    without = 0
    for row in table:
        if by not in row:
            raise InputError(f"a row has no {by}: name the column of what is compared, by=")
        name, score = str(row[by]), row.get(metric)
        key = (tuple(_text(row.get(column)) for column in columns), _text(row.get(SEED, 0)))
        if score is None or score != score:  # a NaN is no score either
            without += 1
            continue
        if key in scores.setdefault(name, {}):
            raise InputError(
                f"two runs are both {name} with {_told(columns, key)}: leave one out, or compare "
                "by what they differ in as well, by="
            )
        scores[name][key] = float(score)
    if len(scores) < 2:
        raise InputError(
            f"there is nothing to compare: of {len(table)} runs, those with {metric} are of "
            f"{' and '.join(scores) or 'no'} {by} alone; name more runs, or another metric="
        )
    said = [f"{without} of {len(table)} runs have no {metric} and are left out."] if without else []
    return scores, said


def _text(value: Any) -> str:
    """How a condition is written; what a run has not got is empty."""
    return "" if value is None else str(value)


def _told(columns: Sequence[str], key: Key) -> str:
    """A condition and seed in words."""
    condition, seed = key
    words = [f"{name}={value}" for name, value in zip(columns, condition, strict=True) if value]
    return ", ".join([*words, f"seed {seed}"])


def _check_baseline(baseline: str, names: Sequence[str]) -> None:
    if baseline not in names:
        raise InputError(
            f"the baseline {baseline!r} is not among what is compared: take one of "
            f"{', '.join(names)}"
        )


def _common(scores: Mapping[str, Scores], columns: Sequence[str]) -> tuple[list[Key], list[str]]:
    """Conditions and seeds that all have, and what each of them lacks."""
    every = dict.fromkeys(key for of_one in scores.values() for key in of_one)
    common = _shared(scores)
    if not common:
        raise InputError(_nothing_common(scores))
    lacking: dict[tuple[Key, ...], list[str]] = {}
    for name, of_one in scores.items():
        lacking.setdefault(tuple(key for key in every if key not in of_one), []).append(name)
    lacking.pop((), None)
    told = [
        f"{', '.join(names)}: {len(lacks)} of {len(every)} runs that others have are not there "
        f"({_told(columns, lacks[0])}{'; …' if len(lacks) > 1 else ''})."
        for lacks, names in lacking.items()
    ]
    return common, [*told, f"Compared are the {len(common)} that all have."] if told else []


def _shared(scores: Mapping[str, Scores]) -> list[Key]:
    first, *others = scores.values()
    return [key for key in first if all(key in of_one for of_one in others)]


def _nothing_common(scores: Mapping[str, Scores]) -> str:
    """Which one to leave out, where that leaves something in common."""
    left = {
        name: len(_shared({other: scores[other] for other in scores if other != name}))
        for name in scores
    }
    name = max(left, key=lambda name: left[name])
    told = "no condition and seed is had by all"
    if len(scores) > 2 and left[name]:
        return f"{told}: leave out {name}, without=[{name}], and there are {left[name]}"
    return f"{told}: compare runs on the same target, shift, stream and seed, from the same source"


def _blocks(scores: Mapping[str, Scores], common: Sequence[Key], pairs: str) -> Numbers:
    """(N, K) scores, a row a pair."""
    values = np.array([[of_one[key] for of_one in scores.values()] for key in common])
    if pairs == "seeds":
        return values
    of_condition: dict[Condition, list[int]] = {}
    for place, (condition, _) in enumerate(common):
        of_condition.setdefault(condition, []).append(place)
    return np.array([values[places].mean(0) for places in of_condition.values()])


def _paired(
    names: Sequence[str], blocks: Numbers, base: int, lower: bool, resamples: int
) -> dict[str, dict[str, Any]]:
    """By name, what the pairs say: ranks, and of all but the baseline differences and tests."""
    ranks = paired.mean_ranks(blocks, lower)
    differences = {
        name: blocks[:, place] - blocks[:, base]
        for place, name in enumerate(names)
        if place != base
    }
    tested = len(blocks) >= FEWEST
    tests = [paired.signed_rank(values) for values in differences.values()] if tested else []
    corrected = dict(zip(differences, paired.holm(tests), strict=False))
    found: dict[str, dict[str, Any]] = {
        name: {"rank": float(rank)} for name, rank in zip(names, ranks, strict=True)
    }
    for place, (name, values) in enumerate(differences.items()):
        gains = np.round(-values if lower else values, 9)
        found[name] |= {
            "difference": float(np.median(values)),
            "interval": median_interval(values, resamples),
            "better": int((gains > 0).sum()),
            "worse": int((gains < 0).sum()),
            "p": tests[place] if tested else None,
            "corrected": corrected.get(name),
        }
    return found


def _deviation(scores: Scores, common: Sequence[Key]) -> float | None:
    """Deviation over seeds of the mean over conditions, of seeds that met every condition."""
    count = len({condition for condition, _ in common})
    of_seed: dict[Any, list[float]] = {}
    for key in common:
        of_seed.setdefault(key[1], []).append(scores[key])
    means = [fmean(values) for values in of_seed.values() if len(values) == count]
    return stdev(means) if len(means) > 1 else None


def _cells(
    scores: Mapping[str, Scores], common: Sequence[Key]
) -> dict[tuple[Condition, str], SeedScores]:
    values: dict[tuple[Condition, str], list[float]] = {}
    for key in common:
        for name, of_one in scores.items():
            values.setdefault((key[0], name), []).append(of_one[key])
    return {
        key: SeedScores(len(found), fmean(found), stdev(found) if len(found) > 1 else None)
        for key, found in values.items()
    }


def _warnings(pairs: int, tests: int) -> list[str]:
    """What so many pairs cannot tell."""
    least = paired.smallest_p(pairs)
    if pairs < FEWEST:
        return [
            f"{counted(pairs, 'pair')} {'is' if pairs == 1 else 'are'} too few for a test, since "
            "the smallest p that they can give is "
            f"{least:.3g}: run more seeds or streams, {FEWEST} pairs or more."
        ]
    if tests * least > LEVEL:
        return [
            f"{pairs} pairs and {tests} tests cannot give a corrected p below {tests * least:.3g}: "
            "run more seeds or streams, or compare fewer."
        ]
    return []
