"""A stream that waits: images are served as they arrive, in their order, once each."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from holdfast.datamodules import files
from holdfast.datamodules.streams.waiting import WaitingLoader
from holdfast.datamodules.watch import Arrivals, WatchConfig, load_watch
from holdfast.programs import adapt
from holdfast.tta.csvfile import read_rows
from tests.conftest import QUICK
from tests.datamodules.dicoms import write_dicom
from tests.test_programs import Capture
from tests.test_resume import ended, forked

WATCH = [*QUICK, "method=tent", "data=watch", "stream.batch_size=8", "data.settled=0.2"]


def drawn(path: Path, number: int) -> Path:
    """A picture in a folder, as a scanner leaves it: whole at once."""
    part = path / f".{number}.part"
    noise = np.random.default_rng(number).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(noise).save(part, "PNG")
    part.rename(path / f"scan{number:03}.png")
    return path / f"scan{number:03}.png"


def aged(path: Path, seconds: float) -> None:
    """A file that was written some time ago."""
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def served(out: Path) -> list[dict[str, str]]:
    return list(read_rows(out / "predictions.csv"))


def test_files_are_taken_when_they_have_settled_the_oldest_first(tmp_path: Path) -> None:
    for number, age in enumerate((30.0, 50.0, 0.0, 40.0)):
        aged(drawn(tmp_path, number), age)
    (tmp_path / "notes.txt").write_text("no image")
    arrivals = Arrivals(tmp_path, settled=5.0)
    assert arrivals.take(2) == ["scan001.png", "scan003.png"]
    assert arrivals.take(9) == ["scan000.png"]
    assert (arrivals.take(9), arrivals.waiting) == ([], 1)  # still being written, maybe
    aged(tmp_path / "scan002.png", 6.0)
    assert arrivals.take(9) == []  # it has changed since the last look
    assert arrivals.take(9) == ["scan002.png"]
    assert not arrivals.stopped
    (tmp_path / "STOP").touch()
    assert arrivals.stopped


@pytest.fixture
def door(tmp_path: Path) -> Path:
    folder = tmp_path / "door"
    folder.mkdir()
    return folder


def test_images_are_served_as_they_arrive(
    source: Path, tmp_path: Path, door: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    for number in range(10):
        aged(drawn(door, number), 100.0 - number)
    (door / "scan004.png").write_bytes(b"no picture")
    aged(door / "scan004.png", 96.0)

    out = tmp_path / "out"

    def later() -> None:
        while not (out / "predictions.csv").is_file() or len(served(out)) < 7:
            time.sleep(0.05)
        for number in range(10, 13):
            drawn(door, number)
        (door / "STOP").touch()

    thread = Thread(target=later, daemon=True)
    thread.start()
    words = [*WATCH, f"source={source}", f"data.root={door}", f"output={tmp_path / 'out'}"]
    assert adapt.main([*words, "trainer.enable_progress_bar=true"]) == 0
    thread.join()
    said = capsys.readouterr().out
    assert "2 batches [" in said
    assert "125000" not in said, "how many there is room for"
    rows = served(tmp_path / "out")
    good = [row["id"] for row in rows if row["prediction"]]
    assert good == [f"scan{number:03}.png" for number in range(13) if number != 4]
    assert [(row["id"], bool(row["reason"])) for row in rows[12:]] == [("scan004.png", True)]
    assert caplog.text.count("scan004.png") == 1
    trace = list(read_rows(tmp_path / "out" / "trace.csv"))
    assert [row["skipped"] for row in trace][-1] == "short_batch"  # served, not learned from
    order = [row["id"] for row in read_rows(tmp_path / "out" / "stream.csv")]
    assert order == [f"scan{number:03}.png" for number in range(13)]


def test_a_refused_file_is_read_once_and_told_once(
    tmp_path: Path, door: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(door, 0)
    (door / "text.png").write_bytes(b"no picture")
    (door / "empty.png").write_bytes(b"")
    (door / "cut.png").write_bytes((door / "scan000.png").read_bytes()[:300])
    (door / "volume.nii").write_bytes(b"no volume")
    read: list[str] = []
    decode = files.decode_named
    monkeypatch.setattr(
        files, "decode_named", lambda root, name: (read.append(name), decode(root, name))[1]
    )
    names = sorted(path.name for path in door.iterdir())
    for name in names:
        aged(door / name, 60.0)
    (door / "STOP").touch()
    config = WatchConfig(root=str(door), size=28, channels=3)
    loader = WaitingLoader(load_watch(config, "target"), Arrivals(door, 0.2), 2, 0.0, None)
    loader.path = tmp_path / "stream.csv"
    assert sum(len(batch["id"]) for batch in loader) == 2
    assert sorted(read) == names
    bad = [name for name in names if name != "scan000.png"]
    assert sorted(name for name, _ in loader.lost.values()) == bad
    assert [caplog.text.count(name) for name in bad] == [1] * len(bad)
    assert loader.arrivals.take(9) == []


def test_a_short_batch_is_sent_off_and_nothing_is_predicted_twice_after_a_kill(
    source: Path, tmp_path: Path, door: Path
) -> None:
    out = tmp_path / "out"
    waiting = ["stream.max_wait=0.2", "checkpoint.every=1", "data.idle=20"]
    begun = [*WATCH, *waiting, f"source={source}", f"data.root={door}", f"output={out}"]

    def until(count: int) -> None:
        while not (out / "predictions.csv").is_file() or len(served(out)) < count:
            time.sleep(0.02)

    for number in range(3):
        aged(drawn(door, number), 60.0 - number)
    child = forked(lambda: adapt.main(begun))
    until(3)
    for number in range(3, 6):
        aged(drawn(door, number), 30.0 - number)
    until(6)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    for number in range(6, 9):
        aged(drawn(door, number), 10.0 - number)
    (door / "STOP").touch()
    assert ended(forked(lambda: adapt.main([f"resume={out}"]))) == 0
    assert [row["id"] for row in served(out)] == [f"scan{number:03}.png" for number in range(9)]


def test_what_does_not_go_with_waiting_is_refused(
    source: Path, door: Path, capsys: Capture
) -> None:
    begun = [*WATCH, f"source={source}", f"data.root={door}"]
    for words, told in (
        ([*begun, "report=true"], "report=true cannot be done with that"),
        ([*begun, "stream=blocks"], "stream=blocks cannot be done"),
        ([*begun, f"data.root={door / 'none'}"], "create it, or check data.root"),
        ([*begun, "data.task=multilabel"], "the source is of task single, by which"),
        ([*QUICK, f"source={source}", "stream.max_wait=3"], "take data=watch with it"),
    ):
        assert adapt.main(words) == 2
        assert told in capsys.readouterr().err


@pytest.fixture
def node(door: Path) -> Iterator[int]:
    """A DICOM node that leaves in a folder what it is sent; the port that it listens to."""
    pytest.importorskip("pynetdicom")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(door)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    yield port
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_dicom_node_stands_before_the_stream(
    source: Path, tmp_path: Path, door: Path, node: int
) -> None:
    sent, out = tmp_path / "sent", tmp_path / "out"
    for number in range(200):
        noise = np.random.default_rng(number).integers(0, 4096, (28, 28), dtype=np.uint16)
        write_dicom(sent / f"{number}.dcm", noise, SOPInstanceUID=generate_uid())
    words = [*WATCH, "stream.max_wait=2", "data.idle=60", "data.window=[0,4095]"]
    words += [f"source={source}", f"data.root={door}", f"output={out}"]
    child = forked(lambda: adapt.main(words))
    command = [sys.executable, "-m", "pynetdicom", "storescu", "127.0.0.1", str(node), str(sent)]
    subprocess.run([*command, "-r"], check=True, capture_output=True, timeout=300)
    (door / "STOP").touch()
    assert ended(child) == 0
    rows = served(out)
    assert len(rows) == len({row["id"] for row in rows}) == 200
    assert all(row["prediction"] for row in rows)
