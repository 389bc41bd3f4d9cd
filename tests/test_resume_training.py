"""A training that is stopped goes on behind its last whole epoch, to the same weights."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from holdfast.programs import train
from holdfast.tta.checkpoint import SourceCheckpoint
from tests.conftest import QUICK, TINY
from tests.test_programs import Capture
from tests.test_resume import ended, forked

WORDS = [
    *QUICK,
    *(word for word in TINY if "train_images" not in word),
    *("data.train_images=200", "batch_size=32", "calibrate=off", "fisher_images=0"),
]


def reached(folder: Path, epoch: int) -> Callable[[], bool]:
    """Whether an epoch is done, counted from 1, as its checkpoint tells."""
    path = folder / "checkpoints" / "last.ckpt"

    def look() -> bool:
        try:
            return bool(torch.load(path, weights_only=False)["epoch"] + 1 >= epoch)
        except (OSError, RuntimeError, EOFError):  # not there yet, or being written
            return False

    return look


def killed(words: list[str], ready: Callable[[], bool], after: float) -> int:
    """Train, and kill the process some seconds after something is so."""
    child = forked(lambda: train.main(words))
    while not ready():
        time.sleep(0.02)
        if os.waitpid(child, os.WNOHANG)[0]:
            return 0
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def assert_same(ours: Path, theirs: Path) -> None:
    found, same = SourceCheckpoint.load(ours), SourceCheckpoint.load(theirs)
    assert found.hash == same.hash
    assert found.metrics == same.metrics
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}


@pytest.mark.slow
@pytest.mark.gate
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, capsys: Capture) -> None:
    words = [*WORDS, "epochs=3", "augment=[flip,rotate,noise]"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert ended(forked(lambda: train.main([*words, f"output={whole}"]))) == 0
    assert killed([*words, f"output={cut}"], reached(cut, 1), 0.1) == -signal.SIGKILL
    assert train.main([*words, f"output={cut}"]) == 2
    assert f"or go on with that run, resume={cut}" in capsys.readouterr().err
    assert ended(forked(lambda: train.main([f"resume={cut}"]))) == 0
    assert_same(cut, whole)
    assert train.main([f"resume={cut}"]) == 2
    assert "is complete, and there is nothing to resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("special", ["workers=2", "patience=1", "calibrate=quick"])
def test_a_training_that_is_killed_again_and_again(tmp_path: Path, special: str) -> None:
    words = [*WORDS, "epochs=6", "augment=[flip,noise,gamma]", special]
    whole, cut, chance = tmp_path / "whole", tmp_path / "cut", random.Random(0)
    assert ended(forked(lambda: train.main([*words, f"output={whole}"]))) == 0
    again = [*words, f"output={cut}"]
    for epoch in (1, 2, 4, 6):
        if killed(again, reached(cut, epoch), chance.random()) == 0:
            break
        again = [f"resume={cut}"]
    if not (cut / "source.ckpt").is_file() or (cut / "trained.ckpt").is_file():
        assert ended(forked(lambda: train.main(again))) == 0
    assert_same(cut, whole)
