"""The runner of all studies: it trains the source models that are missing, runs the cells that are
left, each row written as soon as it is there, and puts shards together.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from holdfast.benchmarks import tables
from holdfast.benchmarks.cell import Report, run_task
from holdfast.benchmarks.options import BenchmarkConfig
from holdfast.benchmarks.plan import create_plan, plan_tasks
from holdfast.benchmarks.sources import (
    merge_models,
    missing_models,
    plan_models,
    record_models,
    train_model,
)
from holdfast.benchmarks.spreading import spread
from holdfast.benchmarks.tables import GUARD, RUNS, Row, Table
from holdfast.tta.errors import InputError
from holdfast.tta.saying import warn


def tables_of(config: BenchmarkConfig) -> Mapping[str, Table]:
    """The tables of a study."""
    return GUARD if config.compared else RUNS


def read_rows(folder: Path, name: str, tables_: Mapping[str, Table] = GUARD) -> list[Row]:
    """The rows of a table in a folder of results, each once; none of a table that the study has
    not got.
    """
    if name not in tables_:
        return []
    keys = tables_[name].keys
    return tables.latest(tables.read(folder / f"{name}.csv", keys), keys)


def run_cells(
    config: BenchmarkConfig,
    folder: Path,
    tell: Callable[[int, int], None] = lambda done, all_: None,
) -> None:
    """Run what is missing.

    Args:
        config: options.
        folder: of the tables.
        tell: takes the number of cells that are done, and of all, after each report.
    """
    plan, known = create_plan(config), tables_of(config)
    models = plan_models(config, [stream.setting for stream, _ in plan])
    _train(missing_models(config, models.values()), config.processes)
    record_models(folder, models.values())
    rows, references = (read_rows(folder, name, known) for name in ("results", "references"))
    tasks = plan_tasks(config, plan, models, (known["results"], rows), references)
    total = sum(len(cases) for _, cases in plan)
    if not total:
        warn(
            f"no cell falls to shard={config.shard}: streams are dealt out whole, and there are "
            "fewer than shards"
        )
    left = sum(len(task.cells) for task in tasks)
    # What failed before is tried again; and a shard to which no cell falls is finished as well.
    (folder / "errors.csv").unlink(missing_ok=True)
    tables.append(folder / "results.csv", known["results"].columns, [])
    shown = {"desc": "cells", "unit": "cell", "disable": None, "smoothing": 0.1}
    with tqdm(total=total, initial=total - left, **shown) as progress:

        def keep(report: Report) -> None:
            nonlocal left
            columns = known[report.table].columns
            tables.append(folder / f"{report.table}.csv", columns, report.rows)
            left -= report.done
            progress.update(report.done)
            tell(total - left, total)

        spread(run_task, tasks, config.processes, keep)


def _train(jobs: Sequence[list[str]], processes: int) -> None:
    """Train source models."""
    if jobs:
        with tqdm(total=len(jobs), desc="source models", unit="model", disable=None) as progress:
            spread(train_model, jobs, processes, lambda told: progress.update())


def merge(folder: Path, parts: Sequence[Path], tables_: Mapping[str, Table] = GUARD) -> None:
    """Put the tables of shards together, each row once, and failures that nothing made good.

    Args:
        folder: where they go; what is there already counts too.
        parts: outputs of shards.
        tables_: those of the study.

    Raises:
        InputError: a part has no results, or they are of other source models.
    """
    for part in parts:
        if not (part / "results.csv").is_file():
            raise InputError(
                f"{part} has no results.csv: merge takes the outputs of finished shards"
            )
    merge_models(folder, parts)
    rows = {
        name: [row for part in [folder, *parts] for row in read_rows(part, name, tables_)]
        for name in tables_
    }
    keys = tables_["results"].keys
    done = rows["results"]
    rows["errors"] = [
        row for row in rows["errors"] if not any(_made_good(row, other, keys) for other in done)
    ]
    for name, table in tables_.items():
        tables.write(folder / f"{name}.csv", table.columns, tables.latest(rows[name], table.keys))
    if not rows["errors"]:
        (folder / "errors.csv").unlink()


def _made_good(failure: Row, result: Row, keys: Sequence[str]) -> bool:
    """Whether a result is of what failed: a cell, a method under no guard yet, or a whole
    stream.
    """
    return all(failure[name] in (None, result[name]) for name in keys)
