"""Real disks that fail a run, or its tracker: one that becomes read-only, as a disk with errors
does, or one that is full.
"""

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
#: Images of a run; W&B's record of them takes more than its small disk has.
_IMAGES = 6400
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


def failing(disk: Disk, source: Path, out: Path, *words: str) -> tuple[int, str]:
    """Status and errors of a run in whose midst a disk has errors."""
    if not disk.fault.exists():
        pytest.skip("this kernel has no way to ask for an error of ext4")
    words = (*QUICK, f"source={source}", "method=tent", f"data.target_images={_IMAGES}", *words)
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    run = subprocess.Popen(
        [sys.executable, "adapt.py", *words, f"output={out}"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    table, deadline = out / "predictions.csv", time.monotonic() + _PATIENCE
    while not (table.is_file() and table.stat().st_size > 40_000):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    disk.fault.write_text("a test asks for it\n")
    _, said = run.communicate(timeout=_PATIENCE)
    assert "Traceback" not in said
    return run.returncode, said.strip()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_a_disk_that_becomes_read_only_ends_a_run_in_a_sentence(
    source: Path, disk: Disk, mode: str
) -> None:
    out = disk.folder / "out"
    status, said = failing(disk, source, out, f"wandb.mode={mode}")
    assert status == _DISK
    table, last = out / "predictions.csv", said.splitlines()[-1]
    assert re.search(
        r"cannot be written, the disk is read-only; the \d+ lines before are whole: ", last
    )
    rows = list(read_rows(table))
    assert f"incomplete: {len(rows)} of {_IMAGES} images were served" in last
    assert len(rows) % 64 == 0
    assert all(row["served_by"] for row in rows)


def whole(out: Path, said: str) -> None:
    """A run whose tracker's disk failed has all its results, and one sentence says what is lost."""
    assert said.count("W&B takes no more") == 1
    assert said.count("the run goes on without it") == 1
    assert len(list(read_rows(out / "predictions.csv"))) == _IMAGES
    assert (out / "metrics.json").is_file()
    assert (out / "adapted.ckpt").is_file()


@pytest.mark.slow
def test_a_disk_of_the_tracker_that_becomes_read_only_costs_its_record_alone(
    source: Path, tmp_path: Path, disk: Disk
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "wandb").symlink_to(disk.folder)
    status, said = failing(disk, source, out, "wandb.mode=offline")
    assert status == 0
    whole(out, said)


@pytest.mark.slow
def test_a_full_disk_of_the_tracker_costs_its_record_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "wandb").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "none", str(out / "wandb")]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        words = [*QUICK, f"source={source}", f"data.target_images={_IMAGES}", f"output={out}"]
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
        run = subprocess.run(
            [sys.executable, "adapt.py", *words, "wandb.mode=offline"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        done("umount", str(out / "wandb"))
    assert run.returncode == 0
    assert "Traceback" not in run.stderr
    whole(out, run.stderr)


@pytest.mark.slow
def test_a_disk_that_is_read_only_from_the_start_is_told(source: Path, disk: Disk) -> None:
    done("mount", "-o", "remount,ro", str(disk.folder))
    words = [*QUICK, f"source={source}", f"output={disk.folder / 'out'}"]
    run = subprocess.run(
        [sys.executable, "adapt.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == _DISK
    assert "out cannot be written, the disk is read-only" in run.stderr.strip().splitlines()[-1]
