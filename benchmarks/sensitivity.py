"""The plan of how much the results depend on each of the guard's tuned constants: less and more of
it by a fifth, on the same cells. What a checkpoint was calibrated to stays as it is.
"""

from collections.abc import Mapping, Sequence
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
_HEAD = ("constant", "value", "changed to", "cells", "mean", "change", "worst", "change", "")


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
    changed = [change.policy for change in changes_of(Tuned())]
    return replace(config, policies=[OURS, *changed])


def conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """See ``pages.leave``."""
    results, references = (read_rows(folder, name) for name in ("results", "references"))
    lines = compared(with_references(results, references), changes_of(Tuned()))
    return leave(config, folder, {"changes": lines}, markdown(lines), {})


def compared(rows: Sequence[Row], changes: Sequence[Change]) -> list[Row]:
    """A line a change, each against the unchanged guard on the cells that ran under both.

    Args:
        rows: results with their references.
        changes: from ``changes_of``; of a refused value there is no cell, and a line without
            figures.
    """
    runs: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in rows:
        runs.setdefault(row["policy"], {})[key_of(row, CELL_KEYS)] = row
    base = runs.get(OURS, {})
    return [
        {**change._asdict(), **_against(base, runs.get(change.policy, {}))} for change in changes
    ]


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
