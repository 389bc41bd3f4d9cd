"""The runner of all studies: it trains the source models that are missing, and runs the cells that
are left; rows are written as they come.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from holdfast.benchmarks import tables
from holdfast.benchmarks.cell import Report, run_task
from holdfast.benchmarks.cluster import spread
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.passes import load_checkpoint
from holdfast.benchmarks.plan import create_plan, plan_tasks
from holdfast.benchmarks.sources import (
    SourceModel,
    missing_models,
    plan_models,
    record_models,
    train_model,
)
from holdfast.benchmarks.tables import GUARD, METRIC, RUNS, Row, Table, key_of


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
    _train(missing_models(config, models.values()), config)
    record_models(folder, models.values())
    rows, references = (read_rows(folder, name, known) for name in ("results", "references"))
    rows = _with_metric(rows, models.values())
    tasks = plan_tasks(config, plan, models, (known["results"], rows), references)
    total = sum(len(cases) for _, cases in plan)
    left = sum(len(task.cells) for task in tasks)
    # What failed before is tried again.
    (folder / "errors.csv").unlink(missing_ok=True)
    # An earlier version's tables get the columns that they lack before rows join them.
    tables.write(folder / "results.csv", known["results"].columns, rows)
    if references:
        tables.write(folder / "references.csv", known["references"].columns, references)
    shown = {"desc": "cells", "unit": "cell", "disable": None, "smoothing": 0.1}
    with tqdm(total=total, initial=total - left, **shown) as progress:

        def keep(report: Report) -> None:
            nonlocal left
            columns = known[report.table].columns
            tables.append(folder / f"{report.table}.csv", columns, report.rows)
            left -= report.done
            progress.update(report.done)
            tell(total - left, total)

        spread(run_task, tasks, keep, config.processes, config.cluster)
    for name, (keys, columns) in known.items():  # in an order that says not which process was first
        if (folder / f"{name}.csv").is_file():
            rows = sorted(read_rows(folder, name, known), key=lambda row: key_of(row, keys))
            tables.write(folder / f"{name}.csv", columns, rows)


def _with_metric(rows: Sequence[Row], models: Iterable[SourceModel]) -> list[Row]:
    """Rows of which an earlier version did not say what they are scored by: it is what their source
    model's task watches.
    """
    lacking = {row["data"] for row in rows if not row.get(METRIC)}  # mostly none: models take time
    known = {model.data: model.folder for model in models if model.data in lacking}
    watched = {data: load_checkpoint(str(folder)).meaning.watch for data, folder in known.items()}
    return [{**row, METRIC: row.get(METRIC) or watched.get(row["data"])} for row in rows]


def _train(jobs: Sequence[list[str]], config: BenchmarkConfig) -> None:
    """Train source models."""
    if jobs:
        with tqdm(total=len(jobs), desc="source models", unit="model", disable=None) as progress:
            spread(
                train_model, jobs, lambda told: progress.update(), config.processes, config.cluster
            )
