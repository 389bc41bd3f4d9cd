"""Tasks spread over processes of one thread each; what they tell comes back as they tell it."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks import tables
from train import GROUPS as TRAIN_GROUPS
from train import TrainConfig, train
from tta import entry
from tta.errors import InputError

T = TypeVar("T")
Work = Callable[[T, Callable[[Any], None]], None]

_QUIET = ("wandb.mode=disabled", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu")

#: What a worker says when no task is left.
_FINISHED = None


def spread(work: Work[T], tasks: Sequence[T], processes: int, tell: Callable[[Any], None]) -> None:
    """Do the tasks, in this process or in new ones, which end with this call however it ends.

    Args:
        work: takes a task, and what to tell its reports to; of a module's top level.
        tasks: picklable, and begun in this order.
        processes: how many at most; 1: this one.
        tell: takes the reports, in this process, one after the other.

    Raises:
        InputError: a process was killed.
    """
    processes = min(processes, len(tasks))
    if processes <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums, and so results, are then the same as in other processes
        try:
            for task in tasks:
                work(task, tell)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    todo, told = context.Queue(), context.Queue()
    for item in [*tasks, *[_FINISHED] * processes]:
        todo.put(item)
    os.environ["OMP_NUM_THREADS"] = "1"  # new processes read it when they load torch
    workers = [
        context.Process(target=_serve, args=(work, todo, told), daemon=True)
        for _ in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        while processes:
            report = _next(told, workers)
            if isinstance(report, Exception):
                raise report
            if report is _FINISHED:
                processes -= 1
            else:
                tell(report)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for channel in (todo, told):
            channel.cancel_join_thread()  # nobody is left to read what is still in it


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
    """Do tasks whose reports (``benchmarks.cell.Report``) are rows of tables, each written as soon as it is there.

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


def _next(told: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            return told.get(timeout=2)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise InputError(
                    "a process of the benchmark was killed, perhaps for lack of memory: give it fewer, processes=1, and go on "
                    "with the same command"
                ) from None


def _serve(work: Work[T], todo: Any, told: Any) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the parent's to answer: it ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    entry.quieten()
    try:
        for task in iter(todo.get, _FINISHED):
            work(task, told.put)
        told.put(_FINISHED)
    except InputError as error:  # carried to the parent, which stops all
        told.put(error)
    except Exception as error:  # of which nobody knows whether it can be carried
        told.put(RuntimeError("".join(traceback.format_exception(error))))


def _end_with_parent() -> None:
    """A parent that was killed outright cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
