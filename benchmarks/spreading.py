"""Tasks spread over processes of one thread each, which end with the process that started them,
however that ends.
"""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from holdfast.tta.errors import InputError

T = TypeVar("T")
Work = Callable[[T, Callable[[Any], None]], None]

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
        _alone(work, tasks, tell)
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


def _alone(work: Work[T], tasks: Sequence[T], tell: Callable[[Any], None]) -> None:
    """Do the tasks in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, and so results, are then the same as in other processes
    try:
        for task in tasks:
            work(task, tell)
    finally:
        torch.set_num_threads(threads)


def _next(told: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            return told.get(timeout=2)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise InputError(
                    "a process of the benchmark was killed, perhaps for lack of memory: give it "
                    "fewer, processes=1, and go on "
                    "with the same command"
                ) from None


def _serve(work: Work[T], todo: Any, told: Any) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the parent's to answer: it ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    from holdfast.tta import entry  # takes seconds, in which the parent may be killed already

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
