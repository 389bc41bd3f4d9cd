"""Replay: from the trace alone come the verdicts of the live guard; other settings move them."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer

from holdfast.callbacks import CollapseGuard, GuardConfig, TraceWriter
from holdfast.callbacks.records import cell_of
from holdfast.callbacks.replay import main, read_trace, replay
from tests.callbacks.guard.test_guard import Harm, batches, run
from tests.callbacks.guard.test_resume import BLOCKS, EVEN, HARM, MIXED
from tests.conftest import ACCELERATOR
from tests.test_programs import run_adapt

Capture = pytest.CaptureFixture[str]


def recorded(
    folder: Path, config: GuardConfig | None = None, harm: int = 12
) -> tuple[CollapseGuard, list[dict[str, Any]]]:
    """A run that ends in a collapse, its trace in the folder."""
    _, guard, outputs = run(batches(40), Harm(harm), config=config, lr=1e-5)
    writer = TraceWriter(folder)
    trainer = Trainer(
        logger=False, accelerator=ACCELERATOR, enable_checkpointing=False, enable_progress_bar=False
    )
    writer.on_train_start(trainer, None)  # type: ignore[arg-type]
    for index, output in enumerate(outputs):
        writer.on_train_batch_end(trainer, None, output, None, index)  # type: ignore[arg-type]
    writer.on_train_end(trainer, None)  # type: ignore[arg-type]
    return guard, outputs


@pytest.mark.parametrize(
    "config",
    [
        GuardConfig(),
        GuardConfig(levels={"R": 0.05}, ladder=["slow", "reset"], window=9),
        GuardConfig(limits={"R": 0.02, "gain": 0.01}, ladder=["slow", "freeze"]),
    ],
)
def test_a_replayed_verdict_equals_the_live_one(tmp_path: Path, config: GuardConfig) -> None:
    guard, outputs = recorded(tmp_path, config)
    judged = replay(read_trace(tmp_path / "trace.csv"), config)
    states = [decision.verdict.state for decision in judged]
    assert states == [output["verdict"] for output in outputs]
    assert [decision.memory.mode for decision in judged] == [output["mode"] for output in outputs]
    assert guard.alarms > 1
    live = [event for output in outputs for event in output["events"]]
    assert [decision.correction for decision in judged if decision.correction] == [
        event["correction"] for event in live if event["event"] == "correction"
    ]
    reasons = [
        event["message"]
        for event in live
        if event["event"] == "verdict" and event["state"] == "ALARM"
    ]
    said = [decision.verdict.message for decision in judged if decision.correction]
    assert said == reasons


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-17, 0.0, float("inf"), 123456.7890123])
def test_numbers_survive_the_file_bit_for_bit(value: float) -> None:
    assert float(str(cell_of(value))) == value


def test_the_program_compares_writes_and_exits_0(tmp_path: Path, capsys: Capture) -> None:
    guard, _ = recorded(tmp_path)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "0 of 40 verdicts differ." in said.out
    assert "no config.yaml lies beside the trace" in said.err
    out = tmp_path / "replayed.csv"
    assert (
        main(
            [
                str(tmp_path / "trace.csv"),
                "guard.limits.R=100",
                "guard.limits.gain=100",
                "guard.levels.R=0.2",
                f"output={out}",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert str(guard.alarmed[0]) in shown.splitlines()[1]
    assert "verdicts differ:" in shown
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert {row["recorded"] for row in rows} > {"ALARM"}
    assert list(rows[0])[-3:] == ["recorded", "reason", "correction"]


def test_settings_start_from_the_runs(tmp_path: Path, capsys: Capture) -> None:
    recorded(tmp_path, GuardConfig(levels={"R": 0.05}))
    (tmp_path / "config.yaml").write_text("guard:\n  kind: 'on'\n  levels:\n    R: 0.05\n")
    assert main([str(tmp_path)]) == 0
    assert "0 of 40 verdicts differ." in capsys.readouterr().out


def test_a_run_of_the_program_replays_to_its_own_verdicts(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    run_adapt(source, tmp_path, "method=dsbr", "method.lr=0.1", "stream.passes=3")
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0 of 24 verdicts differ." in shown
    assert main([str(tmp_path), "guard.levels.drift=0.01"]) == 0
    assert main([str(tmp_path), "source=absent"]) == 2
    sweep = tmp_path / "lr=1"
    sweep.mkdir()
    for name in ("trace.csv", "config.yaml"):
        shutil.copy(tmp_path / name, sweep)
    assert main([str(sweep)]) == 0


@pytest.mark.parametrize(
    ("words", "modes"),
    [
        ([*MIXED, "method.lr=1e-3"], {"adapting"}),
        ([*EVEN], {"hedging"}),
        (["shift=contrast", "shift.severity=5", "stream=blocks"], set()),
        ([*HARM], {"resting"}),
        ([*HARM, "guard.ladder=[freeze]"], {"frozen"}),
        ([*BLOCKS], {"holding"}),
    ],
)
def test_no_verdict_of_a_real_run_differs_in_any_mode(
    source: Path, tmp_path: Path, capsys: Capture, words: list[str], modes: set[str]
) -> None:
    run_adapt(source, tmp_path, "method=tent", "stream.batch_size=32", "stream.passes=2", *words)
    rows = read_trace(tmp_path / "trace.csv")
    found = {row["mode"] for row in rows}
    assert modes <= found, found
    assert main([str(tmp_path)]) == 0
    assert f"0 of {len(rows)} verdicts differ." in capsys.readouterr().out
    out = tmp_path / "replayed.csv"
    assert main([str(tmp_path), f"output={out}"]) == 0
    with out.open(newline="") as file:
        again = list(csv.DictReader(file))
    assert [row["mode"] for row in again] == [row["mode"] for row in rows]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one trace"),
        (["absent.csv"], "cannot be read"),
        (["{}", "guard.tuned.decay=0.5"], "guard.tuned changes what is measured"),
        (["{}", "guard.order=mixed"], "guard.order changes what is measured"),
        (["{}", "guard.limit.R=0.5"], "did you mean limits"),
        (["{}", "guard.limits.ratio=0.5"], "unknown signal 'ratio'"),
        (["{}", "guard.levels.R=-1"], "must not be negative"),
        (["{}/old.csv"], "lacks the columns"),
        (["{}/bad.csv"], "is not a trace"),
        (["{}/later.csv"], "begins at batch 9"),
        (["{}/empty.csv"], "holds no batch"),
        (["{}", "guard=periodic"], "by the guard that judged it"),
        (["{}", "guard=off"], "by the guard that judged it"),
        (["{}", "guard.limits.R=.nan"], "is not a number"),
        (["{}", "guard.ladder=reset"], "is a list: write guard.ladder=["),
    ],
)
def test_refusals_are_one_sentence(
    tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    head = "batch,J,R,drift,entropy,loss,verdict"
    rest = "mode,non_finite,vanished,gain,looked,stands_for,leads,choice,skipped"
    row = "1,1,0,1,,OK,adapting,0,0,,1,1,,,"
    (tmp_path / "old.csv").write_text(f"{head}\n0,1,1,0,1,,OK\n")
    (tmp_path / "empty.csv").write_text(f"{head},{rest}\n")
    (tmp_path / "later.csv").write_text(f"{head},{rest}\n9,{row}\n")
    (tmp_path / "bad.csv").write_text(f"{head},{rest}\n0,1,one{row[3:]}\n")
    (tmp_path / "trace.csv").write_text(f"{head},{rest}\n0,{row}\n")
    assert main([word.format(tmp_path) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert main(["--help"]) == 0
