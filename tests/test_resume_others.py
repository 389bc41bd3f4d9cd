"""Runs on masks, on findings and of two processes, stopped again and again, end as if they had not
been.
"""

import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from holdfast.programs import adapt
from holdfast.training.config import GROUPS, TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry
from tests.conftest import MASKS, QUICK, TINY_TRAINING
from tests.test_processes import TWO
from tests.test_resume import assert_same, ended, forked, kill_and_compare, straight

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("guard", ["guard=on", "guard=off"])
def test_a_run_on_masks_is_killed_twenty_times(
    mask_source: Path, tmp_path: Path, guard: str
) -> None:
    few = [word for word in MASKS if "target_images" not in word]
    words = ["method=tent", guard, "stream.batch_size=4", "checkpoint.every=2", "report=true"]
    begun = straight(mask_source, tmp_path / "whole", *few, *words, "data.target_images=160")
    assert len(list((tmp_path / "whole" / "masks").iterdir())) == 160
    kill_and_compare(begun, tmp_path, random.Random(guard), "cases.csv")


@pytest.fixture(scope="module")
def finding_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a source model trained briefly on kinds of cells in fields."""
    folder = tmp_path_factory.mktemp("findings")
    words = [*QUICK, *TINY_TRAINING, "data.task=multilabel", "epochs=2", f"output={folder}"]
    return train(entry.configured(TrainConfig, GROUPS, words))


def test_a_run_on_findings_is_killed_twenty_times(finding_source: Path, tmp_path: Path) -> None:
    words = ["method=tent", "stream.batch_size=16", "data.target_images=640", "checkpoint.every=3"]
    begun = straight(finding_source, tmp_path / "whole", *words)
    kill_and_compare(begun, tmp_path, random.Random("findings"))


def started(words: Sequence[str]) -> list[int]:
    """Start two processes that share a run, as torchrun or SLURM would; returns their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: int) -> int:
        places = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        os.environ |= {**places, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        rank_zero_only.rank = rank  # type: ignore[attr-defined]  # settled when it was imported
        return adapt.main(list(words))

    return [forked(lambda: work(0)), forked(lambda: work(1))]


#: Which of two processes hear of it: of a scheduler's signal both, of a kill one or both.
STOPS = [
    *((signal.SIGKILL, (0, 1)), (signal.SIGKILL, (0,)), (signal.SIGKILL, (1,))),
    *((signal.SIGTERM, (0, 1)), (signal.SIGTERM, (1,)), (signal.SIGINT, (0, 1))),
]


def test_two_processes_are_stopped_and_go_on(source: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = [*QUICK, *TWO, f"source={source}", "method=tent", "checkpoint.every=2"]
    words += ["stream.batch_size=16", "data.target_images=480"]
    assert [ended(child) for child in started([*words, f"output={whole}"])] == [0, 0]
    size, table = (whole / "predictions.csv").stat().st_size, out / "predictions.csv"
    chance, again = random.Random(0), [*words, f"output={out}"]
    stops = STOPS * 2
    for (number, ranks), moment in zip(stops, sorted(chance.random() for _ in stops), strict=True):
        children = started(again)
        deadline = time.monotonic() + 120
        while not (table.is_file() and table.stat().st_size > moment * size):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for rank in ranks:
            os.kill(children[rank], number)
        statuses = [ended(child) for child in children]
        assert all(statuses), (number, ranks, statuses)
        again = [f"resume={out}"]
    assert [ended(child) for child in started(again)] == [0, 0]
    assert_same(out, whole)
