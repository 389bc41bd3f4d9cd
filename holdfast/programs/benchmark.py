"""Measure guards: methods on shifted streams, alone and under each guard, as one table, seven
figures and pictures.

With ``study=paper``, measure the claims of the paper behind DSBR instead.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch.loggers import Logger
from tqdm import tqdm

from holdfast.benchmarks import tables, workers
from holdfast.benchmarks.cell import run_task
from holdfast.benchmarks.cost import guard_costs
from holdfast.benchmarks.goals import as_table, grouped, judged
from holdfast.benchmarks.kept import PREDICTION_KEYS, PREDICTIONS
from holdfast.benchmarks.options import (
    BenchmarkConfig,
    StudyConfig,
    output_folder,
    recorded_settings,
)
from holdfast.benchmarks.paper import study as paper
from holdfast.benchmarks.paper.options import PaperConfig
from holdfast.benchmarks.pictures import heat_map, regret_against_gain
from holdfast.benchmarks.plan import (
    Model,
    data_words,
    guards_of,
    missing_models,
    plan_grid,
    plan_models,
    plan_tasks,
)
from holdfast.benchmarks.provenance import merge_models, record_models
from holdfast.benchmarks.report import benchmark_report
from holdfast.benchmarks.summary import OURS, alone, policies_of, summarize, with_references
from holdfast.tta import entry
from holdfast.tta.artifacts import log_artifact
from holdfast.tta.config import read_arguments, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.folder import held
from holdfast.tta.results import log_result
from holdfast.tta.saying import warn
from holdfast.tta.style import save
from holdfast.tta.tracking import create_loggers, finish, log_progress

USAGE = (
    "usage: holdfast benchmark [config.yaml ...] [key=value ...]\n\n"
    "Run methods on shifted streams, alone and guarded; where a run was stopped, the same\ncommand "
    "goes on."
)
#: What names a row of the tables that are read again.
_NAMES = {
    "results": (*tables.CELL_KEYS, "policy"),
    "references": tables.STREAM_KEYS,
    "predictions": PREDICTION_KEYS,
}
_COLUMNS = {
    "results": tables.RESULTS,
    "references": tables.REFERENCES,
    "predictions": PREDICTIONS,
    "errors": (*tables.CELL_KEYS, "policy", "error"),
}


def benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Run the cells that are not there yet, or put shards together; then write summary and
    pictures.

    Returns:
        The content of ``summary.json``.
    """
    with held(Path(config.output).expanduser()):
        return _benchmark(config)


def _benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    folder = output_folder(config)
    name = "-".join(
        [folder.name, *([f"shard{config.shard.replace('/', 'of')}"] if config.shard else [])]
    )
    settings = to_dict(config)
    loggers = create_loggers(
        config.wandb,
        folder,
        name=name,
        job_type="benchmark",
        settings=settings,
        others=config.logger,
    )
    try:
        if config.merge:
            merge(folder, [Path(part).expanduser() for part in config.merge])
        else:
            run_cells(config, folder, loggers)
        summary = _conclude(config, folder)
        _log(loggers, config, folder, name, summary)
    finally:
        finish(loggers)
    return summary


def read_rows(folder: Path, name: str) -> list[tables.Row]:
    """The rows of a table in a folder of results, each once."""
    return tables.latest(tables.read(folder / f"{name}.csv", _NAMES[name]), _NAMES[name])


def _conclude(config: BenchmarkConfig, folder: Path) -> dict[str, Any]:
    """Write summary and pictures of the tables in a folder."""
    results, references = (read_rows(folder, name) for name in ("results", "references"))
    costs = entry.read_json(folder / "cost.json") if (folder / "cost.json").is_file() else {}
    rows = with_references(results, references)
    ours = [row for row in rows if row["policy"] == OURS]
    summary = {
        **summarize(results, references, costs),
        "goals": judged(ours),
        "groups": grouped(ours, alone(ours)),
    }
    entry.write_json(folder / "summary.json", summary)
    if rows:
        save(regret_against_gain(rows), folder / "regret.png")
    if ours:
        save(heat_map(rows), folder / "cells.png")
    if config.report:
        predictions = read_rows(folder, "predictions")
        page = benchmark_report(config, summary, rows, predictions)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return summary


def _log(
    loggers: Sequence[Logger],
    config: BenchmarkConfig,
    folder: Path,
    name: str,
    summary: dict[str, Any],
) -> None:
    """Give the loggers figures, tables, pictures and the results."""
    policies = policies_of(summary)
    tables_ = {
        "policies": [{"policy": policy, **values} for policy, values in policies.items()],
        "results": read_rows(folder, "results"),
    }
    pictures = {
        path.stem: path for path in (folder / "regret.png", folder / "cells.png") if path.is_file()
    }
    log_result(loggers, {"summary": policies}, tables=tables_, pictures=pictures)
    if config.wandb.artifacts:
        names = ("results.csv", "references.csv", "cost.json", "summary.json", "config.yaml")
        files = [folder / file for file in names if (folder / file).is_file()]
        log_artifact(loggers, f"benchmark-{name}", "benchmark", files)


def run_cells(config: BenchmarkConfig, folder: Path, loggers: Sequence[Logger] = ()) -> None:
    """Train the source models that are missing, run the cells that are, and time the guards."""
    grid = plan_grid(config)
    models = plan_models(config, [setting for setting, _ in grid])
    workers.train_models(missing_models(config, models.values()), config.processes)
    record_models(folder, models.values())
    tasks = plan_tasks(
        config, grid, models, read_rows(folder, "results"), read_rows(folder, "references")
    )
    total = sum(len(cases) for _, cases in grid)
    if not total:
        warn(
            f"no cell falls to shard={config.shard}: streams are dealt out whole, and there are "
            "fewer than shards"
        )
    left = sum(len(task.cells) for task in tasks)
    tell = partial(log_progress, loggers)
    workers.run_cells(
        run_task, tasks, config.processes, folder, _COLUMNS, total=total, left=left, tell=tell
    )
    if config.cost_rounds and grid:
        _time_guards(config, folder, grid[0][0].data, next(iter(models.values())))


def merge(folder: Path, parts: Sequence[Path]) -> None:
    """Put the tables of shards together, each row once, failures that nothing made good, and the
    costs that each measured.
    """
    merge_models(folder, parts)
    tables.merge(folder, parts, _NAMES, _COLUMNS)
    done = read_rows(folder, "results")
    failures = [row for part in [folder, *parts] for row in tables.read(part / "errors.csv")]
    left = [row for row in failures if not any(_made_good(row, other) for other in done)]
    (folder / "errors.csv").unlink(missing_ok=True)
    if left:
        tables.write(
            folder / "errors.csv", _COLUMNS["errors"], tables.latest(left, _NAMES["results"])
        )
    costs = [
        entry.read_json(part / "cost.json")
        for part in [folder, *parts]
        if (part / "cost.json").is_file()
    ]
    entry.write_json(
        folder / "cost.json",
        {name: median(c[name] for c in costs if name in c) for c in costs for name in c},
    )


def _made_good(failure: tables.Row, result: tables.Row) -> bool:
    """Whether a result is of what failed: a cell, a method under no guard yet, or a whole
    stream.
    """
    return all(failure[name] in (None, result[name]) for name in _NAMES["results"])


def _time_guards(config: BenchmarkConfig, folder: Path, data: str, model: Model) -> None:
    """Add to ``cost.json`` the policies that it lacks."""
    path = folder / "cost.json"
    costs = entry.read_json(path) if path.is_file() else {}
    policies = [name for name in guards_of(config) if name not in costs]
    if not policies:
        return
    with tqdm(
        total=config.cost_rounds * len(policies), desc="cost", unit="pass", disable=None
    ) as progress:
        words = data_words(config, data)
        costs |= guard_costs(
            str(model.folder), words, policies, config.cost_rounds, progress.update
        )
    entry.write_json(path, costs)


#: What can be measured: options, work, and its summary as text.
STUDIES: dict[
    str, tuple[type[StudyConfig], Callable[[Any], dict[str, Any]], Callable[[dict[str, Any]], str]]
] = {
    "guard": (BenchmarkConfig, benchmark, as_table),
    "paper": (PaperConfig, paper.run_study, paper.as_table),
}


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status, 1 where cells failed."""
    schema, work, as_text = STUDIES.get(_study_of(argv), STUDIES["guard"])
    status = 0

    def run() -> None:
        nonlocal status
        config = entry.configured(schema, {}, argv)
        if config.merge:  # the settings are those of the shards, which need not be given again
            config = entry.configured(schema, {}, argv, recorded_settings(config))
        print(as_text(work(config)))
        errors = tables.read(Path(config.output) / "errors.csv")
        if errors:
            again = "the shards' commands try" if config.merge else "the same command tries"
            print(
                f"{len(errors)} failures, see {config.output}/errors.csv; {again} those cells again"
            )
            status = 1  # for whoever started a shard and does not read

    stopped = "stopped; the same command goes on with the cells that are left"
    return entry.run(run, schema, {}, USAGE, argv, stopped) or status


def _study_of(argv: Sequence[str]) -> str:
    """Which study the words ask for; what is wrong with them is said when all options are read."""
    try:
        return str(
            read_arguments([word for word in argv if "=" in word or word.endswith("yaml")], {}).get(
                "study", "guard"
            )
        )
    except InputError:
        return "guard"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
