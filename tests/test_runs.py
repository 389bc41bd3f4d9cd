"""What a run does to its folder, its files and its process, when all does not go well."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import adapt
import train
from tests.conftest import QUICK, ROOT, TINY_TRAINING
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


def started(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
    """A real adapt.py, whose files may be limited to some bytes each."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "adapt.py", *QUICK, *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit status, and the lines of standard error."""
    _, said = process.communicate(timeout=120)
    return process.returncode, [line for line in said.splitlines() if line.strip()]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not what():
        time.sleep(0.02)


def test_a_terminated_stream_says_how_far_it_came(source: Path, tmp_path: Path) -> None:
    process = started(f"source={source}", f"output={tmp_path}", "method=tent", "stream.passes=1000")
    table = tmp_path / "predictions.csv"
    wait_for(lambda: table.is_file() and table.stat().st_size > 10_000, process)
    process.terminate()
    status, said = ended(process)
    served = len(rows(table))
    assert status == 143
    assert said[-1] == (
        f"terminated before the end; incomplete: {served} of 500000 images were served"
    )
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / ".lock").exists()


def test_sigterm_outside_of_a_trainer_is_told_as_well() -> None:
    code = (
        "import sys, time\n"
        "import adapt\n"
        "from tta import entry\n"
        "def work():\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
        "sys.exit(entry.run(work, adapt.AdaptConfig, adapt.GROUPS, '', []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, ["terminated before the end"])
