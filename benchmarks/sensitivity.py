"""The plan of how much the results depend on each of the guard's tuned constants: less and more of
it by a fifth, on the same cells. What a checkpoint was calibrated to stays as it is.

Constants that were tuned to a data set would be chosen otherwise without it. So each data set is
left out in turn, and the change that is best on all others is told beside what it does to this one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.pages import leave, table
from holdfast.benchmarks.runner import read_rows
from holdfast.benchmarks.summary import OURS, figures, with_references
from holdfast.benchmarks.tables import CELL_KEYS, Row, key_of
from holdfast.callbacks.settings import Tuned

#: By how much a constant is changed: a fifth, as far as one might round it.
_SHARES = (-0.2, 0.2)
#: Points of regret by which the mean, and the worst cell, may change.
_MEAN, _WORST = 0.3, 1.0
_AS_IT_IS = "as it is"
#: Constants that change nothing here, where no labels come.
_OF_LABELS = ("label",)
_HEAD = ("constant", "value", "changed to", "cells", "mean", "change", "worst", "change", "")
_LEFT_OUT = (
    *("left out", "best on the others", "cells of it", "mean", "worst", "below"),
    *("as it is: mean", "worst", "below"),
)
#: Figures of a data set that was left out.
_FIGURES = ("mean_regret", "worst_regret", "below_rate")


class Change(NamedTuple):
    """A constant at another value.

    Args:
        constant: its name.
        value: what it is.
        other: what it is changed to.
        policy: the guard with the change, as the benchmark names it.
    """

    constant: str
    value: float
    other: float
    policy: str


def changes_of(tuned: Any) -> list[Change]:
    """The changes of every number of a dataclass that is not 0, whole numbers by 1 at least."""
    changes = []
    for field in fields(tuned):
        value = getattr(tuned, field.name)
        if field.name in _OF_LABELS:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value == 0:
            continue
        for share in _SHARES:
            other: float = float(f"{value * (1 + share):.6g}")
            if isinstance(value, int):
                step = max(1, round(abs(share * value)))
                other = value + step if share > 0 else value - step
            policy = f"{OURS} guard.tuned.{field.name}={other}"
            changes.append(Change(field.name, value, other, policy))
    return changes


def prepare(config: BenchmarkConfig) -> BenchmarkConfig:
    """The benchmark with our guard as it is, and under each change."""
    changed = [change.policy for change in _changes(config)]
    return replace(config, policies=[OURS, *changed])


def _changes(config: BenchmarkConfig) -> list[Change]:
    """The changes that are asked for."""
    named = config.constants
    every = changes_of(Tuned())
    return [change for change in every if named is None or change.constant in named]


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.leave``."""
    results, references = (read_rows(folder, name) for name in ("results", "references"))
    rows, changes = with_references(results, references), _changes(config)
    lines, sets = compared(rows, changes), left_out(rows, changes)
    text = "\n\n".join([markdown(lines), *([of_sets(sets)] if sets else [])])
    return leave(config, folder, {"changes": lines, "left_out": sets}, text, {})


def compared(rows: Sequence[Row], changes: Sequence[Change]) -> list[Row]:
    """A line a change, each against the unchanged guard on the cells that ran under both.

    Args:
        rows: results with their references.
        changes: from ``changes_of``; of a refused value there is no cell, and a line without
            figures.
    """
    runs = _by_policy(rows)
    base = runs.get(OURS, {})
    return [
        {**change._asdict(), **_against(base, runs.get(change.policy, {}))} for change in changes
    ]


def left_out(rows: Sequence[Row], changes: Sequence[Change]) -> list[Row]:
    """For each data set, the change, or none, with the least mean regret on the cells of all
    others, and the figures of this one with it and without; empty with a single data set.

    Args:
        rows: results with their references.
        changes: from ``changes_of``; one that did not run on all cells is not chosen.
    """
    runs = _by_policy(rows)
    base = runs.pop(OURS, {})
    named = {change.policy: f"{change.constant} {change.other:g}" for change in changes}
    whole = {
        named[policy]: own
        for policy, own in runs.items()
        if policy in named and own.keys() >= base.keys()
    }
    choices = {_AS_IT_IS: base, **whole}
    sets = dict.fromkeys(row["data"] for row in base.values())
    lines = []
    for name in sets if len(sets) > 1 else ():
        inside = {key for key, row in base.items() if row["data"] == name}
        best = min(choices, key=lambda choice: _of(choices[choice], base.keys() - inside)[0])
        lines.append(
            {
                **{"data": name, "chosen": best, "cells": len(inside)},
                **dict(zip(_FIGURES, _of(choices[best], inside), strict=True)),
                _AS_IT_IS: dict(zip(_FIGURES, _of(base, inside), strict=True)),
            }
        )
    return lines


def _of(runs: Mapping[tuple[str, ...], Row], cells: Iterable[tuple[str, ...]]) -> list[float]:
    """Mean regret, worst, and share more than a point below, of some cells."""
    found = figures([runs[key] for key in cells])
    return [found[name] for name in _FIGURES]


def _by_policy(rows: Sequence[Row]) -> dict[str, dict[tuple[str, ...], Row]]:
    runs: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in rows:
        runs.setdefault(row["policy"], {})[key_of(row, CELL_KEYS)] = row
    return runs


def _against(base: Mapping[tuple[str, ...], Row], changed: Mapping[tuple[str, ...], Row]) -> Row:
    both = [key for key in changed if key in base]
    if not both:
        return {"cells": 0}
    before, after = (figures([runs[key] for key in both]) for runs in (base, changed))
    mean, worst = (after[name] - before[name] for name in ("mean_regret", "worst_regret"))
    return {
        "cells": len(both),
        **{"mean_regret": after["mean_regret"], "mean_change": mean},
        **{"worst_regret": after["worst_regret"], "worst_change": worst},
        "beyond": abs(mean) > _MEAN or abs(worst) > _WORST,
    }


def markdown(lines: Sequence[Row]) -> str:
    """The table, and which constants matter."""
    scores = ("mean_regret", "mean_change", "worst_regret", "worst_change")
    texts = [
        [
            *(line["constant"], f"{line['value']:g}", f"{line['other']:g}", str(line["cells"])),
            *(f"{line[name]:.2f}" if name in line else "–" for name in scores),
            "beyond" if line.get("beyond") else "",
        ]
        for line in lines
    ]
    names = dict.fromkeys(line["constant"] for line in lines if line.get("beyond"))
    told = (
        f"{len(names)} constants change the mean regret by more than {_MEAN:g} points, or the "
        f"worst by more than {_WORST:g}{': ' if names else ''}{', '.join(names)}"
    )
    return f"{table(_HEAD, texts)}\n\n{told}"


def of_sets(lines: Sequence[Row]) -> str:
    """The table of data sets that were left out."""
    texts = [
        [line["data"], line["chosen"], str(line["cells"]), *_shown(line), *_shown(line[_AS_IT_IS])]
        for line in lines
    ]
    return table(_LEFT_OUT, texts, texts=2)


def _shown(found: Row) -> list[str]:
    mean, worst, below = (found[name] for name in _FIGURES)
    return [f"{mean:.1f}", f"{worst:.1f}", f"{below:.0%}"]
