"""Real disks that fail a run: one that becomes read-only under it, as a disk with errors does."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.tta.csvfile import read_rows
from tests.conftest import QUICK, ROOT

#: Exit status of a run whose disk takes no more.
_DISK = 74
#: Seconds that a run may take to get so far on a busy machine.
_PATIENCE = 240


class Disk(NamedTuple):
    """A file system of its own.

    Attributes:
        folder: where it is mounted.
        fault: file by which it is told that it has errors.
    """

    folder: Path
    fault: Path


def done(*words: str) -> str:
    """What a command prints; None of its errors matter but that there was one."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An ext4 of 16 MB in a file, which becomes read-only when it has errors."""
    folder, image = tmp_path / "disk", tmp_path / "disk.img"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root may mount a disk")
    try:
        with image.open("wb") as file:
            file.truncate(16 * 2**20)
        done("mkfs.ext4", "-q", "-F", str(image))
        done("mount", "-o", "loop,errors=remount-ro", str(image), str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    device = Path(done("findmnt", "-no", "SOURCE", str(folder))).name
    yield Disk(folder, Path(f"/sys/fs/ext4/{device}/trigger_fs_error"))
    done("umount", str(folder))


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_ends_a_run_in_a_sentence(source: Path, disk: Disk) -> None:
    if not disk.fault.exists():
        pytest.skip("this kernel has no way to ask for an error of ext4")
    out = disk.folder / "out"
    words = [*QUICK, f"source={source}", "method=tent", "data.target_images=6400", f"output={out}"]
    run = subprocess.Popen(
        [sys.executable, "adapt.py", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    table, deadline = out / "predictions.csv", time.monotonic() + _PATIENCE
    while not (table.is_file() and table.stat().st_size > 40_000):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    disk.fault.write_text("a test asks for it\n")
    _, said = run.communicate(timeout=_PATIENCE)
    assert run.returncode == _DISK
    last = said.strip().splitlines()[-1]
    assert re.search(
        r"cannot be written, the disk is read-only; the \d+ lines before are whole: ", last
    )
    rows = list(read_rows(table))
    assert f"incomplete: {len(rows)} of 6400 images were served" in last
    assert len(rows) % 64 == 0
    assert all(row["served_by"] for row in rows)


@pytest.mark.slow
def test_a_disk_that_is_read_only_from_the_start_is_told(source: Path, disk: Disk) -> None:
    done("mount", "-o", "remount,ro", str(disk.folder))
    words = [*QUICK, f"source={source}", f"output={disk.folder / 'out'}"]
    run = subprocess.run(
        [sys.executable, "adapt.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == _DISK
    assert "out cannot be written, the disk is read-only" in run.stderr.strip().splitlines()[-1]
