"""What a comparison found, and how it reads at a terminal."""

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.benchmarks.summary import aligned

Condition = tuple[str, ...]
#: Conditions and entries that a terminal, and a page in LaTeX, shows one by one.
_MOST, _WIDEST = 40, 8
#: A p below which only that is said.
_LEAST_P = 0.001
_NONE = "–"


@dataclass(frozen=True)
class Entry:
    """One of what is compared, over the pairs that all have; scores in the metric's unit.

    Attributes:
        name: of it.
        runs: how many were compared.
        mean: of their scores.
        sd: deviation over seeds of the mean over conditions; None of a single seed.
        rank: mean rank, 1 the best.
        difference: median of its scores minus the baseline's; None of the baseline itself.
        interval: 95 % of that, by resampling pairs.
        better: pairs in which it is better than the baseline.
        worse: those in which it is worse.
        p: of Wilcoxon's signed-rank test against the baseline; None of too few pairs.
        corrected: that by Holm's correction over all that are compared.
    """

    name: str
    runs: int
    mean: float
    sd: float | None
    rank: float
    difference: float | None = None
    interval: tuple[float, float] | None = None
    better: int | None = None
    worse: int | None = None
    p: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class SeedScores:
    """One of what is compared under one condition: runs, mean and deviation over seeds."""

    runs: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; ``str`` is its table.

    Attributes:
        by: what is compared.
        metric: by which.
        lower: whether less is better.
        baseline: name of the entry that the others are held against.
        entries: the best mean rank first.
        columns: names of what makes a condition.
        cells: by condition and name, of the same runs.
        conditions: how many all have.
        seeds: how many there are in these.
        pairs: how many were tested.
        friedman: chi-squared and p; None of fewer than three entries, or too few pairs.
        critical: difference of mean ranks from which on two differ by Nemenyi's test, at 5 %.
        notes: sentences on what was left out, and why.
    """

    by: str
    metric: str
    lower: bool
    baseline: str
    entries: tuple[Entry, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[Condition, str], SeedScores]
    conditions: int
    seeds: int
    pairs: int
    friedman: tuple[float, float] | None
    critical: float | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return _as_text(self)


def _as_text(found: Comparison) -> str:
    """All that a reader at a terminal needs."""
    head = [found.by, "runs", "mean", "rank", "difference [95 %]", "better", "p", "p (Holm)"]
    lines = [head, *(_line(entry, found.pairs) for entry in found.entries)]
    parts = [f"{title(found)}\n\n{aligned(lines)}"]
    if shown(found):
        parts.append(aligned(_by_condition(found)))
    if found.friedman is not None and found.critical is not None:
        statistic, p = found.friedman
        parts.append(
            f"Friedman over {len(found.entries)} and {found.pairs} pairs: χ² = {statistic:.2f}, "
            f"p {_equal(p)}; ranks differ from {found.critical:.2f} on (Nemenyi, 5 %)."
        )
    return "\n\n".join([*parts, *found.notes])


def title(found: Comparison) -> str:
    """What was compared, in a sentence."""
    better = "less is better" if found.lower else "more is better"
    return (
        f"{found.metric} ({better}), mean ± sd over seeds, of "
        f"{counted(found.conditions, 'condition')}, "
        f"{counted(found.seeds, 'seed')} and {counted(found.pairs, 'pair')}; differences are "
        f"medians, from {found.baseline}"
    )


def _line(entry: Entry, pairs: int) -> list[str]:
    interval = "" if entry.interval is None else " [{:+.2f}, {:+.2f}]".format(*entry.interval)
    return [
        entry.name,
        str(entry.runs),
        spread(entry),
        f"{entry.rank:.2f}",
        _NONE if entry.difference is None else f"{entry.difference:+.2f}{interval}",
        _NONE if entry.better is None else f"{entry.better}/{pairs}",
        p_text(entry.p),
        p_text(entry.corrected),
    ]


def spread(cell: SeedScores | Entry, sign: str = "±") -> str:
    """Mean and deviation; a single run has none."""
    return f"{cell.mean:.2f}" if cell.sd is None else f"{cell.mean:.2f} {sign} {cell.sd:.2f}"


def p_text(value: float | None) -> str:
    """A p as it is shown."""
    if value is None:
        return _NONE
    return f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"


def _equal(value: float) -> str:
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"


def shown(found: Comparison) -> bool:
    """Whether conditions are shown one by one; the table for spreadsheets always does it."""
    few = found.conditions <= _MOST and len(found.entries) <= _WIDEST
    return bool(found.columns) and few


def _by_condition(found: Comparison) -> list[list[str]]:
    names = [entry.name for entry in found.entries]
    lines = [[*found.columns, *names]]
    for condition in conditions(found):
        lines.append([*condition, *(spread(found.cells[condition, name]) for name in names)])
    return lines


def conditions(found: Comparison) -> list[Condition]:
    """The conditions, in the order of the table."""
    return list(dict.fromkeys(condition for condition, _ in found.cells))


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "pair"), counted(6, "pair")
    ('1 pair', '6 pairs')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
