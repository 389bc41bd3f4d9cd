"""The benchmark's work spread over processes: source models to train, and cells whose rows are
written as they come.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holdfast.benchmarks import tables
from holdfast.benchmarks.spreading import T, Work, spread
from holdfast.training.config import GROUPS as TRAIN_GROUPS
from holdfast.training.config import TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry

_QUIET = ("wandb.mode=disabled", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu")


def train_models(jobs: Sequence[list[str]], processes: int) -> None:
    """Train source models.

    Args:
        jobs: how train.py is asked for each.
        processes: how many at most.
    """
    if jobs:
        with tqdm(total=len(jobs), desc="source models", unit="model", disable=None) as progress:
            spread(_train, jobs, processes, lambda _: progress.update())


def run_cells(
    work: Work[T],
    tasks: Sequence[T],
    processes: int,
    folder: Path,
    columns: Mapping[str, Sequence[str]],
    *,
    total: int,
    left: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Do tasks whose reports (``benchmarks.cell.Report``) are rows of tables, each written as soon
    as it is there.

    What failed before is tried again, so errors start afresh.

    Args:
        work: as ``spread`` takes it.
        tasks: what is still to be run.
        processes: how many at most.
        folder: of the tables.
        columns: of each table.
        total: number of cells.
        left: how many of them the tasks have.
        tell: takes the number of cells that are done, and ``total``, after each report.
    """
    (folder / "errors.csv").unlink(missing_ok=True)
    tables.append(
        folder / "results.csv", columns["results"], []
    )  # a shard to which no cell falls is finished as well
    with tqdm(
        total=total, initial=total - left, desc="cells", unit="cell", disable=None, smoothing=0.1
    ) as progress:

        def keep(report: Any) -> None:
            tables.append(folder / f"{report.table}.csv", columns[report.table], report.rows)
            progress.update(report.done)
            nonlocal left
            left -= report.done
            tell(total - left, total)

        spread(work, tasks, processes, keep)


def _train(words: list[str], tell: Callable[[Any], None]) -> None:
    train(entry.configured(TrainConfig, TRAIN_GROUPS, [*_QUIET, *words]))
    tell(words)
