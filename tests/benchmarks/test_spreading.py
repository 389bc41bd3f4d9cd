"""Workers of real processes: they end with their parent, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.benchmarks.spreading import spread
from tests.conftest import ROOT


def stay(file: str, tell: Callable[[object], None]) -> None:
    """A task without an end, which leaves the number of its process."""
    Path(file).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def running(process: int) -> bool:
    """Whether a process is there, and no mere entry in the table."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc"
)
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, "-m", "tests.benchmarks.test_spreading", *map(str, files)]
    parent = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 200
    while not all(file.is_file() and file.read_text() for file in files):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [int(file.read_text()) for file in files]
    assert all(running(worker) for worker in workers)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(running(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker stayed behind"
        time.sleep(0.1)


if __name__ == "__main__":
    spread(stay, sys.argv[1:], 2, print)
