"""Tasks in this process, or by dask in others: of this machine, or of a cluster of many.

A task whose process is lost is run again.
"""

import logging
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.saying import warn

if TYPE_CHECKING:  # imported where processes are asked for: it takes a second
    from distributed import Client, Future

T = TypeVar("T")
Work = Callable[[T, Callable[[Any], None]], None]

#: What a task says when it is done.
_FINISHED = None
#: Seconds in which a scheduler must answer.
_PATIENCE = 10
#: Of new processes. By itself dask adds that freed memory goes back to the system at once, and a
#: network that asks for the same again with each batch takes a third longer.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
#: A place behind all reports.
_LAST = sys.maxsize
#: What ends a benchmark; what it has told is kept.
_LOST = (
    "a task lost one process after the other, perhaps for lack of memory: give it fewer processes, "
    "processes=1 or fewer workers, and go on with the same command"
)
_NO_SCHEDULER = "the scheduler was lost: go on with the same command, cluster= when it runs again"
#: A process does one task at a time, whatever threads it has: chance is a process's own.
_ALONE = threading.Lock()


def spread(
    work: Work[T],
    tasks: Sequence[T],
    tell: Callable[[Any], None],
    processes: int = 1,
    cluster: str | None = None,
) -> None:
    """Do the tasks; what they report is told once each, also of a task that is run again.

    Args:
        work: takes a task, and what to tell its reports to; of a module's top level. It reports
            the same, in the same order, whenever it is run on a task.
        tasks: picklable, and begun in this order.
        tell: takes the reports, in this process, one after the other.
        processes: of this machine, how many at most; 1: this one. They end with this call, however
            it ends.
        cluster: address of a scheduler, whose workers do the tasks instead.

    Raises:
        InputError: no scheduler answers, or a task lost one process after the other.
    """
    processes = min(processes, len(tasks))
    if not tasks or (cluster is None and processes == 1):
        _here(work, tasks, tell)
        return
    with _client(processes, cluster) as client:
        _there(client, work, tasks, tell)


def _here(work: Work[T], tasks: Sequence[T], tell: Callable[[Any], None]) -> None:
    """Do the tasks in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, and so results, are then the same as in other processes
    try:
        for task in tasks:
            work(task, tell)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _client(processes: int, cluster: str | None) -> "Iterator[Client]":
    """Who takes tasks, until the block ends."""
    import dask
    from distributed import Client, LocalCluster

    if cluster is not None:
        try:
            client = Client(cluster, timeout=_PATIENCE)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at cluster={cluster} ({error}): start one, dask scheduler, "
                "and name the address that it tells"
            ) from None
        with client:
            workers = client.scheduler_info()["workers"].values()
            if not workers:
                warn(f"{cluster} has no workers yet: cells wait for them")
            if any(worker["nthreads"] > 1 for worker in workers):
                warn(f"workers of {cluster} do one task at a time: start them with --nthreads 1")
            yield client
        return
    # Of what goes wrong there, what is raised here tells. Nobody else of the machine may connect;
    # and a process may take what memory there is, as this one may.
    options = {"silence_logs": logging.CRITICAL, "security": True, "memory_limit": 0}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": _ENVIRONMENT}),
        LocalCluster(
            n_workers=processes, threads_per_worker=1, dashboard_address="127.0.0.1:0", **options
        ) as local,
        Client(local) as client,
    ):
        yield client


def _there(
    client: "Client", work: Work[T], tasks: Sequence[T], tell: Callable[[Any], None]
) -> None:
    """Do the tasks where a client sends them."""

    inbox: SimpleQueue[Any] = SimpleQueue()
    topic = f"reports of {client.id}"
    client.subscribe_topic(topic, lambda event: inbox.put(pickle.loads(event[1])))
    futures = {}
    for number, task in enumerate(tasks):
        future = client.submit(_serve, work, task, number, topic, pure=False)
        future.add_done_callback(partial(_complain, inbox, number))
        futures[number] = future
    told = dict.fromkeys(futures, 0)
    while futures:
        number, place, report = inbox.get()
        if number not in futures or place < told[number]:
            continue  # a task that is run again tells again what it had told
        if isinstance(report, BaseException):
            raise report
        told[number] += 1
        if report is _FINISHED:
            del futures[number]  # or the task would be run again where its process is lost now
        else:
            tell(report)


def _serve(work: Work[T], task: T, number: int, topic: str) -> None:
    """Do a task in a worker, which tells its reports by number of the task and of the report."""
    from distributed import get_worker

    worker, told = get_worker(), 0

    def tell(report: Any) -> None:
        nonlocal told
        worker.log_event(topic, pickle.dumps((number, told, report)))
        told += 1

    with _ALONE:
        entry.quieten()
        _here(work, [task], tell)
        tell(_FINISHED)


def _complain(inbox: SimpleQueue[Any], number: int, future: "Future[Any]") -> None:
    """Pass on what ended a task before it was finished."""
    from distributed import KilledWorker

    if future.status == "finished":
        return
    error = future.exception() if future.status == "error" else InputError(_NO_SCHEDULER)
    inbox.put((number, _LAST, InputError(_LOST) if isinstance(error, KilledWorker) else error))
