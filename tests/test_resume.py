"""A stream that is stopped at any moment goes on exactly: every file ends byte for byte as if it
had never been stopped.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from holdfast.programs import adapt
from holdfast.tta.checkpoint import load_file, save_file
from holdfast.tta.streamfile import NAME, before, load_stream
from tests.callbacks.guard.test_resume import BLOCKS, EVEN, HARM, MIXED
from tests.conftest import QUICK
from tests.test_programs import Capture, refusal

#: Files that must be the same; those of a run without report or patients are a part of them.
EXACT = (
    *("predictions.csv", "trace.csv", "events.jsonl", "metrics.json", "adapted.ckpt"),
    *("cases.csv", "stream.csv", "patients.csv", "trajectory.png", "audit.json"),
)
#: What asks a process to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHORT = ("stream.batch_size=16", "data.target_images=200", "checkpoint.every=2")


def forked(work: Callable[[], int]) -> int:
    """Start a process that does something; returns its number. It has all modules already."""
    # One that is stopped at once would hear of it in what Python itself does behind a fork, where
    # nobody answers.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell says "&"
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        torch.set_num_threads(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = work()
    except KeyboardInterrupt:  # before the program began
        status = 128 + signal.SIGINT
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process; returns its status, of one that was killed the negative signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def straight(source: Path, out: Path, *words: str) -> list[str]:
    """A run that nobody stops; returns the words that begin it anew elsewhere."""
    begun = [*QUICK, f"source={source}", *words]
    assert ended(forked(lambda: adapt.main([*begun, f"output={out}"]))) == 0
    return begun


def stopped(
    words: Sequence[str],
    out: Path,
    moment: float,
    number: int,
    whole: int,
    name: str = "predictions.csv",
) -> int:
    """Begin a run or go on with it, and stop it when it has written a share of its predictions, or
    of another file; returns its status.
    """
    table = out / name
    child = forked(lambda: adapt.main(list(words)))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return 0
        if table.is_file() and table.stat().st_size > moment * whole:
            break
        time.sleep(0.001)
    os.kill(child, number)
    return ended(child)


def refused(capsys: Capture, folder: Path) -> str:
    """What is said of a run that cannot be gone on with."""
    assert adapt.main([f"resume={folder}"]) == 2
    return str(capsys.readouterr().err)


def assert_same(ours: Path, theirs: Path) -> None:
    """Two runs left the same."""
    left = {path.relative_to(theirs) for path in theirs.rglob("*")}
    assert {path.relative_to(ours) for path in ours.rglob("*")} == left
    for path in left:
        if path.name in EXACT or path.parent.name == "masks":
            assert (ours / path).read_bytes() == (theirs / path).read_bytes(), path


@pytest.fixture(scope="module")
def half(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole run, and one that was killed half-way."""
    folder = tmp_path_factory.mktemp("half")
    begun = straight(source, folder / "whole", "method=tent", *SHORT)
    whole = (folder / "whole" / "predictions.csv").stat().st_size
    words = [*begun, f"output={folder / 'cut'}"]
    assert stopped(words, folder / "cut", 0.5, signal.SIGKILL, whole) == -signal.SIGKILL
    return folder / "whole", folder / "cut"


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_stream_that_is_stopped_in_three_ways_ends_as_if_it_had_not_been(
    source: Path, half: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, cut = half
    size = (whole / "predictions.csv").stat().st_size
    out = copied(cut, tmp_path / "out")
    words = [f"resume={out}"]
    assert stopped(words, out, 0.6, signal.SIGTERM, size) == 128 + signal.SIGTERM
    said = load_stream(out / NAME)
    assert said is not None
    assert stopped(words, out, 0.8, signal.SIGINT, size) == 128 + signal.SIGINT
    # What a signal asks to stop leaves nothing to be done again.
    position = (load_stream(out / NAME) or {})["processes"][0]["loader"]["position"]
    assert len((out / "trace.csv").read_bytes().splitlines()) == position + 1
    assert ended(forked(lambda: adapt.main(words))) == 0
    assert_same(out, whole)


def test_torn_foreign_and_newer_checkpoints_give_way_to_the_one_before(
    half: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = half
    out = copied(cut, tmp_path / "out")
    path, good = out / NAME, (cut / NAME).read_bytes()
    state = load_file(path, "holdfast-stream", "")
    for name in ("format", "version"):
        del state[name]
    for spoil, told in (
        (lambda: path.write_bytes(good[: len(good) // 2]), "damaged"),
        (lambda: save_file(path, "holdfast-other", state, before=out / "x"), "is not the"),
        (
            lambda: save_file(path, "holdfast-stream", {**state, "version": 2}, out / "x"),
            "has format version 2",
        ),
    ):
        spoil()
        caplog.clear()
        content = load_stream(path)
        assert content is not None
        assert told in caplog.text
        assert "goes on from the checkpoint before it" in caplog.text
    assert ended(forked(lambda: adapt.main([f"resume={out}"]))) == 0
    (out / "x").unlink()
    assert_same(out, whole)


def test_what_cannot_go_on_is_refused_in_a_sentence(
    source: Path, half: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    whole, cut = half
    resume = f"resume={cut}"
    assert "resume=DIR stands alone" in refusal(adapt, capsys, resume, "method.lr=1")
    assert "is complete, and there is nothing to resume" in refused(capsys, whole)
    assert "config.yaml is not there" in refused(capsys, tmp_path)
    again = refusal(adapt, capsys, f"source={source}", f"output={cut}")
    assert f"overwrite=true, or go on with that run, resume={cut}" in again
    out = copied(cut, tmp_path / "older")
    state = load_file(out / NAME, "holdfast-stream", "")
    del state["processes"][0]["callbacks"]["CollapseGuard"]["memory"]
    plain = {name: value for name, value in state.items() if name not in ("format", "version")}
    save_file(out / NAME, "holdfast-stream", plain, before(out / NAME))
    assert "another version of Holdfast left it" in refused(capsys, out)
    out = copied(cut, tmp_path / "none")
    for path in (out / NAME, before(out / NAME)):
        path.write_bytes(b"torn")
    assert "no other checkpoint is left" in refused(capsys, out)
    out = copied(cut, tmp_path / "short")
    (out / "predictions.csv").write_bytes(b"")
    assert "shorter than when the run was stopped" in refused(capsys, out)
    out = copied(cut, tmp_path / "other")
    config = (out / "config.yaml").read_text().replace("seed: 0", "seed: 5")
    (out / "config.yaml").write_text(config)
    assert "the images are no longer as when" in refused(capsys, out)


def test_a_checkpoint_is_small_and_costs_little(half: tuple[Path, Path]) -> None:
    _, cut = half
    print((cut / NAME).stat().st_size)
    assert (cut / NAME).stat().st_size < 150_000
    state = load_file(cut / NAME, "holdfast-stream", "")["processes"][0]
    assert not [name for name in state["module"] if name.endswith("running_mean")]


#: Methods and guards that the issue names, and what is special to their state.
KINDS = {
    "tent": ("method=tent",),
    "eata": ("method=eata",),
    "cotta": ("method=cotta",),
    "rotta": ("method=rotta",),
    "lame": ("method=lame",),
    "adapting": (*MIXED, "method.lr=1e-3"),
    "hedging": EVEN,
    "holding": BLOCKS,
    "resting": HARM,
    "frozen": (*HARM, "guard.ladder=[slow,freeze]"),
    "policy": ("guard=zscore", "method=tent"),
    "workers": ("method=tent", "workers=2"),
    "bf16": ("method=tent", "trainer.precision=bf16-mixed"),
    "report": ("method=tent", "report=true", "bootstrap=20"),
    "window": ("method=tent", "stream.window=32"),
    "labels": ("method=tent",),
}
#: How twenty kills are spread over the ways to stop a run.
WAYS = (*[signal.SIGKILL] * 14, *[signal.SIGTERM] * 3, *[signal.SIGINT] * 3)
LONG = ("stream.batch_size=16", "data.target_images=640", "checkpoint.every=3")


def kill_and_compare(
    begun: Sequence[str], folder: Path, chance: random.Random, name: str = "predictions.csv"
) -> None:
    """Stop a run twenty times, and hold what it leaves in ``out`` against the run in ``whole``.

    Args:
        begun: words that begin it.
        folder: of both.
        chance: draws the moments, and which way to stop it comes when.
        name: of the file whose growth tells the moment.
    """
    whole, out, ways = folder / "whole", folder / "out", list(WAYS)
    size, words = (whole / name).stat().st_size, [*begun, f"output={out}"]
    chance.shuffle(ways)
    for number, moment in zip(ways, sorted(chance.random() for _ in ways), strict=True):
        status = stopped(words, out, moment, number, size, name)
        assert status in (-number, 128 + number), moment
        words = [f"resume={out}"]
    assert ended(forked(lambda: adapt.main(words))) == 0
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_at_random_moments(source: Path, tmp_path: Path, kind: str) -> None:
    chance, words = random.Random(kind), [*KINDS[kind], *LONG]
    if kind == "labels":
        table = tmp_path / "labels.csv"
        rows = (f"target-scanner_b-{number},round" for number in range(0, 640, 3))
        table.write_text("\n".join(["id,label", *rows, ""]))
        words.append(f"labels={table}")
    begun = straight(source, tmp_path / "whole", *words)
    kill_and_compare(begun, tmp_path, chance)
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["batches"] == len((out / "trace.csv").read_bytes().splitlines()) - 1
