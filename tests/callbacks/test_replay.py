"""Replay: from the trace alone come the verdicts of the live guard; other settings move them."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from callbacks.judge import cell_of, statistics_of, trace_of
from callbacks.verdict import Statistics
from lightning import Trainer

from callbacks import CollapseGuard, GuardConfig, TraceWriter
from callbacks.replay import main, read_trace, replay
from tests.callbacks.guard.test_guard import Harm, batches, run
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
    "config", [GuardConfig(), GuardConfig(watch_ratio=0.95, ladder=["slow", "reset"], window=9)]
)
def test_a_replayed_verdict_equals_the_live_one(tmp_path: Path, config: GuardConfig) -> None:
    guard, outputs = recorded(tmp_path, config)
    judged = replay(read_trace(tmp_path / "trace.csv"), config)
    assert [verdict.state for verdict, _ in judged] == [output["verdict"] for output in outputs]
    assert guard.alarms > 1
    live = [event for output in outputs for event in output["events"]]
    assert [rung for _, rung in judged if rung] == [
        event["correction"] for event in live if event["event"] == "correction"
    ]
    reasons = [
        event["message"]
        for event in live
        if event["event"] == "verdict" and event["state"] == "ALARM"
    ]
    assert [verdict.message for verdict, rung in judged if rung] == reasons


def test_statistics_survive_the_file_bit_for_bit() -> None:
    for statistics in (
        Statistics(),
        Statistics(0.1, 1 / 3, 1e-17, ("a, b", 'quote"'), True),
        Statistics(drift=float("inf")),
        Statistics(drift=0.05, stands_for=4),
    ):
        cells = {
            key: str("" if (v := cell_of(value)) is None else v)
            for key, value in trace_of(statistics).items()
        }
        assert statistics_of(cells) == statistics


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
                "guard.alarm_shortfall=100",
                "guard.watch_ratio=0.8",
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
    recorded(tmp_path, GuardConfig(watch_ratio=0.95))
    (tmp_path / "config.yaml").write_text("guard:\n  kind: 'on'\n  watch_ratio: 0.95\n")
    assert main([str(tmp_path)]) == 0
    assert "0 of 40 verdicts differ." in capsys.readouterr().out


def test_a_run_of_the_program_replays_to_its_own_verdicts(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    run_adapt(source, tmp_path, "method=dsbr", "method.lr=0.1", "stream.passes=3")
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0 of 24 verdicts differ." in shown
    assert main([str(tmp_path), "guard.watch_drift=0.01"]) == 0
    assert main([str(tmp_path), "source=absent"]) == 2
    sweep = tmp_path / "lr=1"
    sweep.mkdir()
    for name in ("trace.csv", "config.yaml"):
        shutil.copy(tmp_path / name, sweep)
    assert main([str(sweep)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one trace"),
        (["absent.csv"], "cannot be read"),
        (["{}", "guard.decay=0.5"], "guard.decay changes what is measured"),
        (["{}", "guard.watch_ratios=0.5"], "watch_ratio"),
        (["{}", "guard.watch_ratio=-1"], "must not be negative"),
        (["{}/old.csv"], "lacks the columns"),
        (["{}/bad.csv"], "is not a trace"),
        (["{}/later.csv"], "begins at batch 9"),
        (["{}/empty.csv"], "holds no batch"),
        (["{}", "guard=periodic"], "by the guard that judged it"),
        (["{}", "guard=off"], "by the guard that judged it"),
        (["{}", "guard.watch_ratio=.nan"], "is not a number"),
        (["{}", "guard.ladder=reset"], "is a list: write guard.ladder=["),
    ],
)
def test_refusals_are_one_sentence(
    tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    head = "batch,J,R,drift,entropy,loss,verdict"
    rest = "vanished,non_finite,lead,doubt,lean,mirror,disagreement,rank,stands_for,choice"
    (tmp_path / "old.csv").write_text(f"{head}\n0,1,1,0,1,,OK\n")
    (tmp_path / "empty.csv").write_text(f"{head},{rest}\n")
    (tmp_path / "later.csv").write_text(f"{head},{rest}\n9,1,1,0,1,,OK,,0,,,,,,,1,\n")
    (tmp_path / "bad.csv").write_text(f"{head},{rest}\n0,one,1,0,1,,OK,,0,,,,,,,1,\n")
    (tmp_path / "trace.csv").write_text(f"{head},{rest}\n0,1,1,0,1,,OK,,0,,,,,,,1,\n")
    assert main([word.format(tmp_path) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert main(["--help"]) == 0
