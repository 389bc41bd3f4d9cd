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
from holdfast.tta.csvfile import read_rows
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


def started(words: Sequence[str], scheduler: str = "torch") -> list[int]:
    """Start two processes that share a run, in the environment that torch's launchers or SLURM's
    ``srun`` would give them; returns their numbers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: int) -> int:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        if scheduler == "slurm":
            for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
                del os.environ[name]
            places = {"PROCID": rank, "LOCALID": rank, "NODEID": 0, "NTASKS": 2, "JOB_ID": 7}
            told = {**places, "JOB_NAME": "stream", "NTASKS_PER_NODE": 2, "NODELIST": "localhost"}
            os.environ |= {f"SLURM_{name}": str(value) for name, value in told.items()}
        rank_zero_only.rank = rank  # type: ignore[attr-defined]  # settled when it was imported
        return adapt.main(list(words))

    return [forked(lambda: work(0)), forked(lambda: work(1))]


#: Which of two processes hear of it: of a scheduler's signal both, of a kill one or both.
STOPS = [
    *((signal.SIGKILL, (0, 1)), (signal.SIGKILL, (0,)), (signal.SIGKILL, (1,))),
    *((signal.SIGTERM, (0, 1)), (signal.SIGTERM, (1,)), (signal.SIGINT, (0, 1))),
]


@pytest.mark.parametrize(
    ("scheduler", "stops"),
    [("torch", STOPS * 2), ("slurm", [(signal.SIGTERM, (0, 1)), (signal.SIGKILL, (0, 1))])],
    ids=["torch", "slurm"],
)
def test_two_processes_are_stopped_and_go_on(
    source: Path, tmp_path: Path, scheduler: str, stops: Sequence[tuple[int, tuple[int, ...]]]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = [*QUICK, *TWO, f"source={source}", "method=tent", "checkpoint.every=2"]
    words += ["stream.batch_size=16", "data.target_images=480"]
    begun = started([*words, f"output={whole}"], scheduler)
    assert [ended(child) for child in begun] == [0, 0]
    size, table = (whole / "predictions.csv").stat().st_size, out / "predictions.csv"
    chance, again = random.Random(0), [*words, f"output={out}"]
    for (number, ranks), moment in zip(stops, sorted(chance.random() for _ in stops), strict=True):
        children = started(again, scheduler)
        deadline = time.monotonic() + 120
        while not (table.is_file() and table.stat().st_size > moment * size):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for rank in ranks:
            os.kill(children[rank], number)
        statuses = [ended(child) for child in children]
        assert all(statuses), (number, ranks, statuses)
        if number == signal.SIGTERM and len(ranks) == len(children):
            assert statuses == [128 + number] * 2  # by which a script asks to be queued again
        again = [f"resume={out}"]
    assert [ended(child) for child in started(again, scheduler)] == [0, 0]
    assert_same(out, whole)


@pytest.mark.parametrize("guard", ["guard=off", "guard=on"])
@pytest.mark.parametrize("method", ["tent", "dsbr", "eata"])
def test_two_processes_serve_what_one_serves(
    source: Path, tmp_path: Path, method: str, guard: str
) -> None:
    words = [*QUICK, f"source={source}", f"method={method}", guard, "stream.batch_size=32"]
    words += ["data.target_images=320"]
    shared = started([*words, *TWO, f"output={tmp_path / 'two'}"])
    assert [ended(child) for child in shared] == [0, 0]
    assert ended(forked(lambda: adapt.main([*words, f"output={tmp_path / 'one'}"]))) == 0
    two, one = (list(read_rows(tmp_path / name / "predictions.csv")) for name in ("two", "one"))
    assert [row["id"] for row in two] == [row["id"] for row in one]
    columns = [name for name in one[0] if name.startswith("prob_")]
    apart = max(
        abs(float(a[n]) - float(b[n])) for a, b in zip(one, two, strict=True) for n in columns
    )
    verdicts = [[(row["verdict"], row["mode"]) for row in rows] for rows in (one, two)]
    assert verdicts[0] == verdicts[1]
    # Adam divides by small moments, so rounding grows to some 1e-5 in ten steps; and the guard's
    # evidence is of 16 images of each process, in place of 16 in all.
    assert apart <= (2e-5 if guard == "guard=off" else 0.1)
