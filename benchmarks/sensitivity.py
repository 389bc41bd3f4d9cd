"""How much the results depend on each of the guard's tuned constants: less and more of it by a
fifth, on the same cells. What a checkpoint was calibrated to stays as it is.

python -m holdfast.benchmarks.sensitivity configs/benchmark/guard_quick.yaml
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks import tables
from holdfast.benchmarks.options import BenchmarkConfig, output_folder
from holdfast.benchmarks.runner import read_rows, run_cells
from holdfast.benchmarks.summary import OURS, aligned, figures, with_references
from holdfast.callbacks.settings import Tuned
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.folder import held

USAGE = (
    "usage: python -m holdfast.benchmarks.sensitivity config.yaml [key=value ...]\n\n"
    "Run a benchmark's cells under the guard with each constant 20 % lower and higher; where a "
    "run was stopped, the same command goes on."
)
#: By how much a constant is changed: a fifth, as far as one might round it.
_SHARES = (-0.2, 0.2)
#: Points of regret by which the mean, and the worst cell, may change.
_MEAN, _WORST = 0.3, 1.0
#: Where adapt.py has the constants.
_OPTIONS = "guard.tuned"
_SCORES = ("mean_regret", "mean_change", "worst_regret", "worst_change")
COLUMNS = ("constant", "value", "changed_to", "cells", *_SCORES, "beyond")


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


def changes_of(tuned: Any, options: str = _OPTIONS) -> list[Change]:
    """The changes of every number that is not 0, whole numbers by 1 at least.

    Args:
        tuned: a dataclass with the constants.
        options: how adapt.py is asked for its fields, up to the dot.
    """
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
            policy = f"{OURS} {options}.{field.name}={other}"
            changes.append(Change(field.name, value, other, policy))
    return changes


def run_changes(config: BenchmarkConfig, changes: Sequence[Change]) -> list[tables.Row]:
    """Run what is missing, and write ``sensitivity.csv`` in the folder ``sensitivity`` of the
    benchmark's output, whose source models serve.

    Only guarded runs differ: references and unguarded runs of a cell are those of all changes.

    Args:
        config: of the benchmark; which policies it names does not matter.
        changes: from ``changes_of``.

    Returns:
        ``table`` of what was run.
    """
    config = replace(
        config,
        policies=[OURS, *(change.policy for change in changes)],
        sources=config.sources or f"{config.output}/sources",
        output=f"{config.output}/sensitivity",
        cost_rounds=0,
    )
    with held(Path(config.output).expanduser()):
        folder = output_folder(config)
        run_cells(config, folder)
        results, references = (read_rows(folder, name) for name in ("results", "references"))
        lines = table(with_references(results, references), changes)
        tables.write(folder / "sensitivity.csv", COLUMNS, lines)
    return lines


def table(rows: Sequence[tables.Row], changes: Sequence[Change]) -> list[tables.Row]:
    """A line a change, each against the unchanged guard on the cells that ran under both.

    Args:
        rows: results with their references.
        changes: from ``changes_of``; of a refused value there is no cell, and a line without
            figures.
    """
    runs: dict[str, dict[tuple[str, ...], tables.Row]] = {}
    for row in rows:
        runs.setdefault(row["policy"], {})[tables.key_of(row, tables.CELL_KEYS)] = row
    base = runs.get(OURS, {})
    return [
        {
            "constant": change.constant,
            "value": change.value,
            "changed_to": change.other,
            **_against(base, runs.get(change.policy, {})),
        }
        for change in changes
    ]


def _against(
    base: Mapping[tuple[str, ...], tables.Row], changed: Mapping[tuple[str, ...], tables.Row]
) -> tables.Row:
    both = [key for key in changed if key in base]
    if not both:
        return {"cells": 0}
    before, after = (figures([runs[key] for key in both]) for runs in (base, changed))
    mean, worst = (after[name] - before[name] for name in ("mean_regret", "worst_regret"))
    beyond = "yes" if abs(mean) > _MEAN or abs(worst) > _WORST else "no"
    scores = (after["mean_regret"], mean, after["worst_regret"], worst)
    return {"cells": len(both), **dict(zip(_SCORES, scores, strict=True)), "beyond": beyond}


def as_table(lines: Sequence[tables.Row]) -> str:
    """The table as text, and which constants matter."""
    texts = [["constant", "value", "changed to", "cells", "mean", "change", "worst", "change", ""]]
    for line in lines:
        named = [line["constant"], f"{line['value']:g}", f"{line['changed_to']:g}"]
        scores = [f"{line[name]:.2f}" if name in line else "–" for name in _SCORES]
        mark = "beyond" if line.get("beyond") == "yes" else ""
        texts.append([*named, str(line["cells"]), *scores, mark])
    names = dict.fromkeys(line["constant"] for line in lines if line.get("beyond") == "yes")
    told = (
        f"{len(names)} constants change the mean regret by more than {_MEAN:g} points, or the "
        f"worst by more than {_WORST:g}{': ' if names else ''}{', '.join(names)}"
    )
    return f"{aligned(texts)}\n\n{told}"


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status, 1 where cells failed."""
    status = 0

    def run() -> None:
        nonlocal status
        config = entry.configured(BenchmarkConfig, {}, argv)
        if config.merge or config.shard:
            raise InputError("the sensitivity is measured in one piece: leave out shard and merge")
        print(as_table(run_changes(config, changes_of(Tuned()))))
        errors = Path(config.output).expanduser() / "sensitivity" / "errors.csv"
        if errors.is_file():
            print(f"{errors} says what failed; the same command tries it again")
            status = 1

    stopped = "stopped; the same command goes on with what is left"
    return entry.run(run, BenchmarkConfig, {}, USAGE, argv, stopped) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
