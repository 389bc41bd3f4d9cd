"""A program in several processes: the first one speaks and writes, and none is left behind or lost
without a word.

Lightning starts the others with the program's own command line (or torchrun and SLURM start all).
They share training or the stream; what comes after it is for the first process alone.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.tta.errors import ProcessLost

if TYPE_CHECKING:  # Lightning takes seconds, and --help needs none of it
    from lightning import Trainer

#: Seconds that a process has to end once its work is done; it has nothing left to write.
_TO_END = 60
#: What Lightning's launcher leaves in the environment of the process that it was called in.
_LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: What launchers call the rank, in the order in which Lightning asks.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
#: In their environment: which process started them.
_STARTED_BY = "HOLDFAST_STARTED_BY"
#: Words of the backends' errors when the connection to another process is gone.
_GONE = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")


def own_rank() -> int:
    """The rank of this process, which can be told before the processes have met."""
    loaded = sys.modules.get("lightning.pytorch.utilities")
    told = getattr(getattr(loaded, "rank_zero_only", None), "rank", None)
    if told is not None:
        return int(told)
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0)


def is_first() -> bool:
    """Whether this process speaks and writes, which can be told before the processes have met."""
    return not own_rank()


@contextmanager
def together() -> Iterator[None]:
    """Within the block processes talk to each other; one that is gone ends it with a sentence.

    Raises:
        ProcessLost: another process ended before its work was done.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no exception of its own
        from holdfast.tta.distributed import place

        words = str(error).lower()
        if place()[1] == 1 or not any(word in words for word in _GONE):
            raise
        raise ProcessLost(
            "one of the processes that share this run ended before the others, so it was stopped: "
            "see what that process said, or run in one process, trainer.devices=1"
        ) from error


def announce_start() -> None:
    """Tell the processes that a Trainer is about to start who started them."""
    if is_first():
        os.environ[_STARTED_BY] = str(os.getpid())


def end_with_first() -> None:
    """In a process that the first one started: end as soon as that is gone.

    Talking to it would show as much, but not while this one still loads, or waits for a first word.
    """
    starter = os.environ.get(_STARTED_BY)
    if is_first() or starter is None:
        return

    def watch() -> None:
        while os.getppid() == int(starter):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Others:
    """The other processes of a Trainer's run, from when their work is done.

    Args:
        trainer: whose run is over.
    """

    def __init__(self, trainer: "Trainer") -> None:
        import torch.distributed as dist

        from holdfast.tta.distributed import place

        self._children: list[subprocess.Popen[bytes]] = []
        if place()[1] == 1:
            return
        with together():
            trainer.strategy.barrier("the shared work is done")
        dist.destroy_process_group()
        children = getattr(trainer.strategy.launcher, "procs", [])
        self._children = list(children)
        # Lightning watches this list, and would kill the first process, with what it has still to
        # write, if another one stumbled over its own end.
        children.clear()
        if self._children:  # Trainers to come are of one process
            for name in _LAUNCHED:
                os.environ.pop(name, None)

    def ended(self) -> None:
        """Wait for them; this is the last thing that a program does.

        Raises:
            ProcessLost: one did not end well.
        """
        for number, child in enumerate(self._children, start=1):
            try:
                status = child.wait(_TO_END)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
            if status:
                raise ProcessLost(
                    f"process {number} of this run ended with status {status}, though its work "
                    "was done: the results are whole, but see what it said"
                )
