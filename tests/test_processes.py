"""train.py and adapt.py in two real processes: what is written is whole, and a process that is lost
is told.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.datamodules.source import SourceData, _Dealt
from holdfast.programs import adapt, train
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.metrics import balanced_accuracy
from tests.benchmarks.test_cluster import running
from tests.callbacks.test_report import checked
from tests.conftest import QUICK, ROOT, TINY, TINY_TRAINING
from tests.datamodules.test_streams import images
from tests.test_programs import rows

TWO = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]


def command(program: str, *words: str) -> list[str]:
    quiet = ["wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    return [sys.executable, program, *quiet, *TWO, *words]


def run(program: str, *words: str) -> list[str]:
    """Lines on the standard output of a run that ends well."""
    done = subprocess.run(
        command(program, *words), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.gate
def test_two_processes_train_one_model_and_adapt_it_as_one(tmp_path: Path) -> None:
    few = [word for word in TINY_TRAINING if "val_images" not in word]
    odd = ["data.val_images=161", "epochs=1", f"output={tmp_path / 'source'}"]
    said = run("train.py", *few, *odd)
    assert [line for line in said if "source.ckpt" in line] == said[-1:]
    assert {path.name for path in (tmp_path / "source").iterdir()} == {
        "source.ckpt",
        "metrics.json",
        "config.yaml",
        "csv",
    }
    # The best epoch is told by all validation images, each once, though they do not go round
    # evenly.
    curve = rows(tmp_path / "source" / "csv" / "metrics.csv")
    best = max(float(row["val/balanced_accuracy"] or 0) for row in curve)
    checkpoint = SourceCheckpoint.load(tmp_path / "source")
    assert checkpoint.metrics["val_balanced_accuracy"] == pytest.approx(100 * best, abs=1e-3)

    out = tmp_path / "out"
    words = ["method=tent", f"source={tmp_path / 'source'}", f"output={out}", "report=true"]
    said = run("adapt.py", *words, "data.target_images=250")
    assert [line for line in said if str(out) in line] == said[-1:]
    assert not [path for path in out.iterdir() if path.is_dir()]
    order = [row["id"] for row in rows(out / "stream.csv")]
    predictions = rows(out / "predictions.csv")
    assert [row["id"] for row in predictions] == order
    assert len(set(order)) == len(order) == 250
    metrics = json.loads((out / "metrics.json").read_text())
    scored(metrics, predictions, checkpoint, out)
    assert said[-1].startswith(f"{out}: balanced accuracy {metrics['balanced_accuracy']:.1f} %")
    trace = rows(out / "trace.csv")
    assert [row["batch"] for row in trace] == ["0", "1", "2", "3"]
    entropies = [entropy(row, checkpoint.class_names) for row in predictions]
    for index, row in enumerate(trace):
        mean = np.mean(entropies[64 * index : 64 * (index + 1)])
        assert float(row["entropy"]) == pytest.approx(mean, abs=1e-3)
    text, page = checked(out / "report.html")
    assert "2 processes shared each batch." in text
    assert "250 images, 4 batches" in text
    assert "32 images up to batch 0" in text  # of features, the share of the process that writes
    sensitivity = [line for line in page.rows if line[0] in checkpoint.class_names]
    assert sum(int(line[1].rstrip("*")) for line in sensitivity if len(line) == 6) == 250


def scored(
    metrics: dict[str, Any],
    predictions: list[dict[str, str]],
    checkpoint: SourceCheckpoint,
    out: Path,
) -> None:
    """The metrics are those of all predictions in the file."""
    words = [f"source={out.parent / 'source'}", *QUICK, "data.target_images=250"]
    target = Assembly.of(configure(words), checkpoint).images
    label = dict(zip(target.ids.tolist(), target.labels.tolist(), strict=True))
    names = checkpoint.class_names
    said = torch.tensor([names.index(row["prediction"]) for row in predictions])
    truth = torch.tensor([label[row["id"]] for row in predictions])
    expected = balanced_accuracy(said, truth, len(names))
    assert metrics["balanced_accuracy"] == pytest.approx(expected, abs=1e-3)
    assert metrics["batches"] == 4
    assert [row["label"] for row in predictions] == [names[number] for number in truth.tolist()]
    assert {"source", "control"} == set(metrics["against"])


def entropy(row: dict[str, str], names: list[str]) -> float:
    p = np.array([float(row[f"prob_{name}"]) for name in names])
    return float(-(p * np.log(p.clip(1e-12))).sum())


@pytest.mark.slow
def test_a_lost_process_ends_the_run_with_a_sentence(source: Path, tmp_path: Path) -> None:
    long = ["method=tent", "stream.passes=500", *TINY]
    first = subprocess.Popen(
        command("adapt.py", f"source={source}", f"output={tmp_path}", *long),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started, file = time.monotonic(), tmp_path / "predictions.csv"
    while not (file.is_file() and file.stat().st_size > 4000):
        assert first.poll() is None
        assert time.monotonic() < started + 200
        time.sleep(0.1)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    if not children.is_file():
        first.kill()
        pytest.skip("this system does not tell the children of a process")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "ended before the others" in errors
    assert "Traceback" not in errors
    with file.open(newline="") as written:
        assert len(list(csv.reader(written))) > 1
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.slow
def test_processes_end_with_the_first_one_while_they_still_load(
    source: Path, tmp_path: Path
) -> None:
    words = command("adapt.py", f"source={source}", f"output={tmp_path}", *TINY)
    first = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    if not children.is_file():
        first.kill()
        pytest.skip("this system does not tell the children of a process")
    started = time.monotonic()
    while not children.read_text():
        assert time.monotonic() < started + 200
        time.sleep(0.05)
    [other] = map(int, children.read_text().split())
    first.kill()
    first.wait()
    deadline = time.monotonic() + 60
    while running(other):
        assert time.monotonic() < deadline, "a process stayed behind"
        time.sleep(0.1)


def test_one_device_unless_more_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.trainer_arguments({}, max_epochs=1)["devices"] == 1
    assert entry.trainer_arguments({"devices": "auto"}, max_epochs=1)["devices"] == "auto"
    for program in (train, adapt):
        assert program.main(["--help=trainer"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "one device is used unless trainer.devices=N" in told


def test_training_images_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, kept in ((50, 48), (7, 7)):
        shares = [list(_Dealt(range(count), 8, rank, 2)) for rank in (0, 1)]  # type: ignore[arg-type]
        assert sorted(shares[0] + shares[1]) == list(range(kept))
        assert len(_Dealt(range(count), 8, 1, 2)) == len(shares[1])  # type: ignore[arg-type]
    data = SourceData(images(), images(), images(), batch_size=9)
    monkeypatch.setattr("holdfast.datamodules.source.place", lambda: (1, 2))
    with pytest.raises(InputError, match="take a multiple of 2"):
        data.train_dataloader()


def test_processes_that_keep_their_results_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"source={source}", f"output={tmp_path}", *QUICK, "trainer.strategy=ddp_spawn"]
    assert adapt.main([*words, "trainer.accelerator=cpu", "trainer.devices=2"]) == 2
    assert "trainer.strategy=ddp only" in capsys.readouterr().err
