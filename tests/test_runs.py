"""What a run does to its folder, its files and its process, when all does not go well."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.adapting.outputs import rewrite
from holdfast.programs import adapt, train
from holdfast.tta import entry
from holdfast.tta.csvfile import read_rows
from holdfast.tta.errors import WriteError
from holdfast.tta.folder import carry_out
from tests.conftest import QUICK, TINY_TRAINING, file_limit
from tests.datamodules.test_npz import saved
from tests.test_programs import Capture, refusal, rows, run_adapt

SHORT = ["method=tent", "data.target_images=130"]


def test_a_second_run_does_not_mix_with_the_first(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    run_adapt(source, tmp_path, *SHORT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ours = [f"source={source}", f"output={tmp_path}", *SHORT]
    assert "overwrite=true" in refusal(adapt, capsys, *ours)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "notes.txt").write_text("mine")
    run_adapt(source, tmp_path, *SHORT, "overwrite=true", "seed=1", "guard=off")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == {*before, "notes.txt"}
    assert all(after[name] != before[name] for name in before if name != "events.jsonl")
    assert after["events.jsonl"] == b""
    # Training alike; the session's source is left alone by being refused.
    message = refusal(train, capsys, *TINY_TRAINING, f"output={source}")
    assert "metrics.json, source.ckpt" in message


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("max_epochs=2", "stream.passes=2"),
        ("max_steps=3", "part of the target"),
        ("max_time=00:00:00:01", "part of the target"),
        ("limit_train_batches=2", "part of the target"),
        ("fast_dev_run=true", "preflight=only"),
        ("overfit_batches=1", "part of the target"),
        ("gradient_clip_val=1.0", "method.lr"),
        ("accumulate_grad_batches=2", "stream.window"),
        ("enable_checkpointing=true", "does without"),
        ("use_distributed_sampler=false", "does without"),
        ("inference_mode=false", "does without"),
        ("barebones=true", "does without"),
    ],
)
def test_no_argument_of_the_trainer_changes_what_is_served(
    source: Path, capsys: Capture, word: str, instead: str
) -> None:
    said = refusal(adapt, capsys, f"source={source}", f"trainer.{word}")
    assert "would change what is served or learned" in said
    assert instead in said


@pytest.mark.parametrize(
    "word", ["enable_checkpointing=true", "fast_dev_run=true", "barebones=true"]
)
def test_training_keeps_what_it_needs(capsys: Capture, word: str) -> None:
    assert "is settled by train.py" in refusal(train, capsys, *TINY_TRAINING, f"trainer.{word}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("program", [adapt, train])
def test_a_gpu_that_is_not_there_is_told(source: Path, capsys: Capture, program: Any) -> None:
    ours = [f"source={source}"] if program is adapt else []
    said = refusal(program, capsys, *ours, "trainer.accelerator=gpu")
    assert "torch finds no such device here" in said


def when(ready: Callable[[], bool], act: Callable[[], object]) -> Thread:
    """Something that happens to a run from outside."""

    def wait() -> None:
        while not ready():
            time.sleep(0.02)
        act()

    thread = Thread(target=wait, daemon=True)
    thread.start()
    return thread


def grown(table: Path) -> Callable[[], bool]:
    return lambda: table.is_file() and table.stat().st_size > 10_000


def last_line(capsys: Capture) -> str:
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()][-1]


def endless(source: Path, output: Path) -> list[str]:
    words = [f"source={source}", f"output={output}", "method=tent", "stream.passes=100"]
    return [*QUICK, *words]


def test_a_terminated_stream_says_how_far_it_came(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    table = tmp_path / "predictions.csv"
    end = when(grown(table), lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert adapt.main(endless(source, tmp_path)) == 143
    end.join()
    assert last_line(capsys) == (
        f"terminated before the end; incomplete: {len(rows(table))} of 50000 images were served; "
        f"go on with resume={tmp_path}"
    )
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / ".lock").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_outside_of_a_trainer_is_told_as_well(capsys: Capture) -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    assert entry.run(work, adapt.AdaptConfig, adapt.GROUPS, "", []) == 143
    assert capsys.readouterr().err == "terminated before the end\n"


def test_metrics_stay_whole_where_more_of_them_do_not_fit(tmp_path: Path) -> None:
    scored, part = tmp_path / "metrics.json", tmp_path / "metrics.json.part"
    scored.write_text('{"accuracy": 90.0}')
    more = {"accuracy": 90.0, "against": dict.fromkeys(map(str, range(1000)), 1.0)}
    step = (part, lambda: rewrite(part, scored, more))
    with file_limit(1000), pytest.raises(WriteError, match=r"and whole metrics\.json"):
        carry_out([step], kept=["metrics.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads(scored.read_text()) == {"accuracy": 90.0}
    carry_out([step])
    assert json.loads(scored.read_text()) == more
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("limit", "file", "whole"),
    [
        (20_000, "predictions.csv", ()),
        (55_000, "trajectory.png", ("predictions.csv", "metrics.json", "adapted.ckpt")),
    ],
)
def test_a_full_disk_is_told_and_what_is_whole_stays(
    source: Path, tmp_path: Path, capsys: Capture, limit: int, file: str, whole: tuple[str, ...]
) -> None:
    words = [f"source={source}", f"output={tmp_path}", "method=tent", "data.target_images=400"]
    words.append("predictions.columns=none")
    with file_limit(limit):
        assert adapt.main([*QUICK, *words]) == 74
    said = last_line(capsys)
    assert f"error: {tmp_path}/{file} cannot be written, the file would exceed" in said
    table = rows(tmp_path / "predictions.csv")
    assert all(row["served_by"] for row in table)
    if whole:
        assert f"whole {', '.join(whole[:1])}" in said
        assert all((tmp_path / name).stat().st_size for name in whole)
        assert len(table) == 400
        assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] > 0
    else:
        assert len(table) % 64 == 0
        assert f"the {len(table) + 1} lines before are whole" in said
        assert f"incomplete: {len(table)} of 400 images were served" in said
    assert not (tmp_path / "trajectory.png").exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_removed_in_mid_run_is_missed_at_once(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "out"
    end = when(grown(output / "predictions.csv"), lambda: shutil.rmtree(output))
    assert adapt.main(endless(source, output)) == 74
    end.join()
    assert f"error: {output} was removed while the run wrote to it" in last_line(capsys)


def test_ids_that_look_like_formulas_come_back(source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    names = [f"{'=+-@'[number % 4]}1+{number}" for number in range(70)]
    path = saved(tmp_path, {"images": images, "id": np.array(names)})
    words = ["data=npz", f"data.path={path}", "method=tent", "predictions.columns=none"]
    run_adapt(source, tmp_path / "out", *words, "predictions.parquet=true")
    text = (tmp_path / "out" / "predictions.csv").read_text()
    assert not [line for line in text.splitlines() if line[0] in "=+-@"]
    served = [row["id"] for row in read_rows(tmp_path / "out" / "predictions.csv")]
    assert sorted(served) == sorted(names)
    table = tmp_path / "out" / "stream.csv"
    again = ["stream=replay", f"stream.path={table}"]
    run_adapt(source, tmp_path / "again", *words, *again)
    assert (tmp_path / "again" / "predictions.csv").read_text() == text
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.column("id").to_pylist() == served
    assert "prob_round" not in text
