"""Run methods on shifted streams, alone and guarded, and make of the rows what a study asks: the
figures of guards, or the tables of a page of docs/.
"""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.benchmarks.config import BenchmarkConfig, output_folder
from holdfast.tta import entry
from holdfast.tta.config import to_dict
from holdfast.tta.folder import held
from holdfast.tta.saying import aside

if TYPE_CHECKING:  # imported where work begins: torch takes seconds, and --help needs none of it
    from lightning.pytorch.loggers import Logger

USAGE = (
    "usage: holdfast benchmark [config.yaml ...] [key=value ...]\n\n"
    "Run methods on shifted streams, alone and guarded; where a run was stopped, the same\ncommand "
    "goes on."
)
#: Files that tell the results again.
_KEPT = ("results.csv", "references.csv", "summary.json", "config.yaml")


def benchmark(config: BenchmarkConfig) -> str:
    """Run the cells that are not there yet; then write summary and pictures.

    Returns:
        The figures, as text.
    """
    from holdfast.benchmarks.runner import run_cells
    from holdfast.tta.tracking import create_loggers, finish, log_progress

    with held(Path(config.output).expanduser()):
        folder = output_folder(config)
        loggers = create_loggers(
            config.wandb,
            folder,
            name=folder.name,
            job_type="benchmark",
            settings=to_dict(config),
            others=config.logger,
        )
        try:
            run_cells(config, folder, partial(log_progress, loggers))
            summary, text = _conclude(config, folder)
            _log(loggers, config, folder, summary)
        finally:
            finish(loggers)
    return text


def _conclude(config: BenchmarkConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """What the study makes of the rows: files, the content of ``summary.json``, its figures as
    text.
    """
    study = import_module(f"holdfast.benchmarks.{config.study}")
    found: tuple[dict[str, Any], str] = study.conclude(config, folder)
    return found


def _log(
    loggers: "Sequence[Logger]",
    config: BenchmarkConfig,
    folder: Path,
    summary: dict[str, Any],
) -> None:
    """Give the loggers figures, tables, pictures and the results."""
    from holdfast.benchmarks.runner import read_rows, tables_of
    from holdfast.benchmarks.summary import policies_of
    from holdfast.tta.artifacts import log_artifact
    from holdfast.tta.results import log_result

    logged = {"results": read_rows(folder, "results", tables_of(config))}
    figures: dict[str, Any] = {"runs": len(logged["results"])}
    if config.study == "guard":
        figures = policies_of(summary)
        logged["policies"] = [{"policy": policy, **figures[policy]} for policy in figures]
    pictures = {path.stem: path for path in sorted(folder.glob("*.png"))}
    log_result(loggers, {"summary": figures}, tables=logged, pictures=pictures)
    if config.wandb.artifacts:
        files = [folder / file for file in _KEPT if (folder / file).is_file()]
        log_artifact(loggers, f"benchmark-{folder.name}", "benchmark", files)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status, 1 where cells failed."""
    status = 0

    def run() -> None:
        nonlocal status
        from holdfast.benchmarks import sensitivity, tables

        aside()
        config = entry.configured(BenchmarkConfig, {}, argv)
        if config.study == "sensitivity":
            config = sensitivity.prepare(config)
        print(benchmark(config))
        errors = tables.read(Path(config.output).expanduser() / "errors.csv")
        if errors:
            print(
                f"{len(errors)} failures, see {config.output}/errors.csv; the same command tries "
                "those cells again"
            )
            status = 1  # for whoever started it and does not read

    stopped = "stopped; the same command goes on with the cells that are left"
    return entry.run(run, BenchmarkConfig, {}, USAGE, argv, stopped) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
