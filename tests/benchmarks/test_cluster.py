"""Tasks in real processes: what one that is killed did is done again, and none stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from holdfast.benchmarks import cluster
from holdfast.benchmarks.cluster import spread
from holdfast.tta.errors import InputError
from tests.conftest import ROOT

in_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc"
)


def running(process: int) -> bool:
    """Whether a process is there, and no mere entry in the table."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(processes: list[int], seconds: float = 30) -> None:
    """Wait until processes have ended."""
    deadline = time.monotonic() + seconds
    while any(running(process) for process in processes):
        assert time.monotonic() < deadline, "a worker stayed behind"
        time.sleep(0.1)


def stay(file: str) -> list[Any]:
    """A task without an end, which leaves the number of its process."""
    Path(file).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def staying(folder: Path, **more: Any) -> tuple[subprocess.Popen[str], list[int]]:
    """A process whose two workers have a task without an end each; and the workers."""
    files = [folder / "one", folder / "two"]
    command = [sys.executable, "-m", "tests.benchmarks.test_cluster", *map(str, files)]
    parent = subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, **more)
    deadline = time.monotonic() + 400
    while not all(file.is_file() and file.read_text() for file in files):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [int(file.read_text()) for file in files]
    assert len(set(workers)) == 2
    assert all(running(worker) for worker in workers)
    return parent, workers


def heed() -> None:
    """Heed Ctrl-C, also where these tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
@pytest.mark.gate
@in_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_parent_that_is_stopped(tmp_path: Path, number: int) -> None:
    parent, workers = staying(tmp_path, start_new_session=True, preexec_fn=heed)
    if number == signal.SIGINT:  # the terminal sends it to all
        os.killpg(parent.pid, number)
    else:
        os.kill(parent.pid, number)
    _, said = parent.communicate(timeout=60)
    gone(workers)
    assert said.count("Traceback") <= 1, "workers have nothing to say"


def lose(task: tuple[str, int]) -> Iterator[Any]:
    """A task that is killed in its midst where it was not before."""
    file, number = task
    yield "begun", number
    if number == 1 and not Path(file).exists():
        Path(file).write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    yield "ended", number


@pytest.mark.slow
@pytest.mark.gate
def test_a_task_whose_process_is_killed_is_run_again_and_told_once(tmp_path: Path) -> None:
    told: list[Any] = []
    spread(lose, [(str(tmp_path / "file"), number) for number in range(4)], told.append, 2)
    assert (tmp_path / "file").exists()
    assert sorted(told) == [(what, number) for what in ("begun", "ended") for number in range(4)]
    for number in range(4):
        assert told.index(("begun", number)) < told.index(("ended", number))


def die(task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_task_that_loses_every_process_ends_all() -> None:
    with pytest.raises(InputError, match="lost one process after the other"):
        spread(die, [1, 2], print, 2)


class Odd(Exception):
    """An error that nothing can carry."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.reason = lambda: sys._getframe()


def fail(task: int) -> list[Any]:
    raise InputError("so it goes") if task == 1 else Odd


def test_an_error_ends_all_and_keeps_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(
        n_workers=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as local:
        address = local.scheduler_address
        with pytest.raises(InputError, match="so it goes"):
            spread(fail, [1], print, cluster=address)
        with pytest.raises(Exception, match="odd"):
            spread(fail, [2, 2], print, cluster=address)
        told: list[Any] = []
        spread(lose, [("", 5), ("", 6)], told.append, cluster=address)
        assert sorted(told) == [("begun", 5), ("begun", 6), ("ended", 5), ("ended", 6)]
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    with pytest.raises(InputError, match=r"no scheduler answers at cluster=tcp://127.0.0.1:9 "):
        spread(fail, [1], print, cluster="tcp://127.0.0.1:9")


if __name__ == "__main__":
    spread(stay, sys.argv[1:], print, 2)
