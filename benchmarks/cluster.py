"""Tasks in this process, or by dask in others: of this machine, or of a cluster of many.

A task whose process is lost is run again.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.saying import warn

if TYPE_CHECKING:  # imported where processes are asked for: it takes a second
    from distributed import Client

T = TypeVar("T")
Work = Callable[[T], Iterable[Any]]

#: Seconds in which a scheduler must answer.
_PATIENCE = 10
#: Of new processes. By itself dask adds that freed memory goes back to the system at once, and a
#: network that asks for the same again with each batch takes a third longer.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
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
        work: takes a task, and gives its reports; of a module's top level.
        tasks: picklable, and begun in this order.
        tell: takes the reports, in this process, one after the other; those of another process once
            its task is done.
        processes: of this machine, how many at most; 1: this one. They end with this call, however
            it ends.
        cluster: address of a scheduler, whose workers do the tasks instead.

    Raises:
        InputError: no scheduler answers, or a task lost one process after the other.
    """
    processes = min(processes, len(tasks))
    if not tasks or (cluster is None and processes == 1):
        with _one_thread():
            for task in tasks:
                for report in work(task):
                    tell(report)
        return
    with _client(processes, cluster) as client:
        _there(client, work, tasks, tell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within the block torch has one thread: sums, and so results, are then the same in all
    processes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
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
    from distributed import KilledWorker, as_completed

    # Nothing else holds the futures: what is done is not run again where its process is lost now.
    done = as_completed([client.submit(_serve, work, task, pure=False) for task in tasks])
    try:
        for future in done:
            for report in future.result():
                tell(report)
    except KilledWorker:
        raise InputError(_LOST) from None
    except CancelledError:
        raise InputError(_NO_SCHEDULER) from None


def _serve(work: Work[T], task: T) -> list[Any]:
    """Do a task in a worker."""
    with _ALONE, _one_thread():
        entry.quieten()
        return list(work(task))
