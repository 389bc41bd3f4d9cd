"""train.py and adapt.py from end to end, with what they leave behind and what they refuse."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.programs import adapt, train
from holdfast.programs.demo import DemoConfig
from holdfast.programs.shown import demo
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from tests.conftest import QUICK, ROOT, TINY, TINY_TRAINING
from tests.datamodules.test_npz import domain_arrays, saved

Capture = pytest.CaptureFixture[str]


def run_adapt(source: Path, output: Path, *words: str) -> dict[str, Any]:
    assert adapt.main([f"source={source}", f"output={output}", *QUICK, *words]) == 0
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return metrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_leaves_one_complete_file(source: Path) -> None:
    assert {path.name for path in source.iterdir()} == {
        "source.ckpt",
        "metrics.json",
        "config.yaml",
        "csv",
    }
    curve = rows(source / "csv" / "metrics.csv")
    assert [row["epoch"] for row in curve if row["train/loss"]] == [
        str(epoch) for epoch in range(4)
    ]
    assert sum(bool(row["val/balanced_accuracy"]) for row in curve) == 4
    checkpoint = SourceCheckpoint.load(source)
    assert checkpoint.class_names == ["round", "elongated", "granular", "lobulated"]
    assert (checkpoint.channels, checkpoint.size) == (3, (32, 32))
    assert (checkpoint.low, checkpoint.high) == (0.0, 255.0)
    assert checkpoint.prevalence.tolist() == [0.25] * 4
    assert checkpoint.feature_mean.shape == checkpoint.feature_var.shape == (4, 128)
    assert checkpoint.separation > 0
    assert 0.05 <= checkpoint.temperature <= 20
    assert checkpoint.entropy_quantiles.shape == (101,)
    assert (checkpoint.entropy_quantiles.diff() >= 0).all()
    assert checkpoint.data["kind"] == "phantom"
    metrics = json.loads((source / "metrics.json").read_text())
    assert 0 < metrics["balanced_accuracy"] <= 100
    torch.load(source / "source.ckpt", weights_only=True)


def test_training_of_a_single_batch_is_not_warned_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    few = ["data.train_images=40", "data.val_images=40", "data.test_images=40", "calibrate=off"]
    assert train.main([*QUICK, *few, "epochs=1", f"output={tmp_path / 'out'}"]) == 0
    assert not [str(warning.message) for warning in recwarn if "log_every" in str(warning.message)]


@pytest.mark.parametrize("other", [(), ("notes.txt",)])
def test_training_goes_where_one_was_interrupted(tmp_path: Path, other: tuple[str, ...]) -> None:
    left = tmp_path / "checkpoints"
    left.mkdir()
    for name in ("best.ckpt", *other):
        (left / name).write_text("half written")
    assert train.main([*QUICK, *TINY_TRAINING, "epochs=1", f"output={tmp_path}"]) == 0
    SourceCheckpoint.load(tmp_path)
    assert (sorted(path.name for path in left.iterdir()) if left.exists() else []) == list(
        other
    )  # a user's file is left alone


def test_the_checkpoint_predicts_as_the_trained_network_did(source: Path, tmp_path: Path) -> None:
    words = ["method=source", "data.source=scanner_a", "data.target=scanner_a", "guard=off"]
    metrics = run_adapt(source, tmp_path, *words)
    trained = json.loads((source / "metrics.json").read_text())
    assert metrics["balanced_accuracy"] == pytest.approx(
        trained["balanced_accuracy"], abs=12
    )  # other images, same scanner


def test_adaptation_leaves_predictions_trace_events_and_state(source: Path, tmp_path: Path) -> None:
    metrics = run_adapt(source, tmp_path, "method=tent", "method.lr=1e-3")
    names = [
        "predictions.csv",
        "trace.csv",
        "events.jsonl",
        "metrics.json",
        "config.yaml",
        "trajectory.png",
        "adapted.ckpt",
        "audit.json",
        "timing.json",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "stream.csv"}
    predictions = rows(tmp_path / "predictions.csv")
    assert len(predictions) == 500
    assert list(predictions[0]) == [
        *(
            "id",
            "prediction",
            "confidence",
            "prob_round",
            "prob_elongated",
            "prob_granular",
            "prob_lobulated",
        ),
        *("verdict", "served_by", "reason", "batch", "mode", "weights", "labels"),
        *("label", "domain", "chain"),
    ]
    right = sum(row["prediction"] == row["label"] for row in predictions)
    assert metrics["accuracy"] == pytest.approx(100 * right / 500, abs=1e-3)
    for row in predictions[:20]:
        probabilities = {
            key[5:]: float(value) for key, value in row.items() if key.startswith("prob_")
        }
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert max(probabilities, key=lambda name: probabilities[name]) == row["prediction"]
    trace = rows(tmp_path / "trace.csv")
    # The short last batch is no business of the adapted model alone, nor has it a share where
    # nothing is learned from so few.
    # Which un-updated candidate has it depends on what the processor's roundings trained.
    unlearned = {"control", "corrected", "source", "mixture"}
    assert {row["served_by"] for row in predictions[-52:]} <= unlearned
    assert not (trace[-1]["skipped"] and trace[-1]["share_adapted"])
    shown = ["batch", "J", "R", "drift", "entropy", "loss", "verdict", "mode"]
    assert list(trace[0])[:8] == shown
    handled = ["looked", "stands_for", "leads", "choice", "skipped", "served_by"]
    assert list(trace[0])[-12:-6] == handled
    modes = {"adapting", "hedging", "holding", "resting", "frozen"}
    assert {row["mode"] for row in trace} <= modes
    assert all(row["verdict"] != "OK" or row["mode"] == "adapting" for row in trace)
    for row in trace:  # whoever answered the batch together is told with its share
        shares = [float(row[key]) for key in row if key.startswith("share_") and row[key]]
        assert sum(shares) == pytest.approx(1) if row["served_by"] == "mixture" else not shares
    assert len(trace) == 8
    assert any(row["R"] for row in trace)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    changes = [event for event in events if event["event"] == "mode"]
    ends = [row["mode"] for row in trace]
    turned = [i for i, mode in enumerate(ends) if mode != ([*["adapting"], *ends])[i]]
    assert [event["batch"] for event in changes] == turned
    for event in changes:
        assert event["mode"] == ends[event["batch"]]
        assert sum(event["shares"].values()) == pytest.approx(1, abs=1e-3)
    for key in (
        "accuracy",
        "balanced_accuracy",
        "auroc",
        "sensitivity",
        "specificity",
        "ece",
        "last_quarter",
        "domains",
    ):
        assert key in metrics
    assert json.loads((tmp_path / "timing.json").read_text())["images_per_second"] > 0
    again = run_adapt(source, tmp_path / "again", str(tmp_path / "config.yaml"))
    assert again["balanced_accuracy"] == metrics["balanced_accuracy"]
    assert (tmp_path / "again" / "predictions.csv").read_text() == (
        tmp_path / "predictions.csv"
    ).read_text()


def test_adapted_state_is_accepted_as_a_start(source: Path, tmp_path: Path) -> None:
    run_adapt(source, tmp_path / "first", "method=tent", "method.lr=1e-2", "guard=off")
    start = f"start={tmp_path / 'first' / 'adapted.ckpt'}"
    run_adapt(source, tmp_path / "on", "method=tent", "method.lr=1e-12", "guard=off", start)
    fresh = run_adapt(source, tmp_path / "fresh", "method=tent", "method.lr=1e-12", "guard=off")
    went_on = json.loads((tmp_path / "on" / "metrics.json").read_text())
    assert went_on["ece"] != fresh["ece"]


@pytest.mark.parametrize("method", ["source", "norm"])
def test_methods_that_learn_nothing(source: Path, tmp_path: Path, method: str) -> None:
    metrics = run_adapt(source, tmp_path, f"method={method}")
    assert metrics["resets"] == 0
    reasons = {
        json.loads(line)["reason"] for line in (tmp_path / "events.jsonl").read_text().splitlines()
    }
    assert metrics["alarms"] == 0 or (
        method == "norm" and "statistics" in reasons
    )  # nothing else to be alarmed about
    served = {row["served_by"] for row in rows(tmp_path / "predictions.csv")}
    assert served <= ({"source"} if method == "source" else {"control", "source", "mixture"})


@pytest.mark.slow
@pytest.mark.gate
def test_a_run_that_is_terminated_does_not_claim_to_be_done(tmp_path: Path) -> None:
    words = [*QUICK, *TINY_TRAINING, "epochs=1000", "patience=1000", f"output={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "csv" / "metrics.csv").is_file():
        time.sleep(0.1)  # until the first epoch is over
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.splitlines()[-1] == "terminated before the end"
    assert not (tmp_path / "source.ckpt").exists()


def test_half_precision_is_mixed_or_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_adapt(source, tmp_path / "mixed", "trainer.precision=bf16-mixed")["accuracy"] > 0
    with pytest.raises(AssertionError):
        run_adapt(source, tmp_path / "true", "trainer.precision=bf16-true")
    assert "use trainer.precision=bf16-mixed" in capsys.readouterr().err


def test_an_unlabelled_target_has_no_metrics_that_need_labels(source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    path = saved(tmp_path, {"images": images})
    metrics = run_adapt(source, tmp_path / "out", "data=npz", f"data.path={path}")
    assert set(metrics) == {
        "network",
        "alarms",
        "resets",
        "batches",
        "skipped_batches",
        "broken_images",
        "unreadable_images",
    }


def test_a_broken_image_is_no_reason_to_refuse_a_stream(source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((130, 32, 32, 3), dtype=np.float32)
    images[70] = np.nan
    path = saved(tmp_path, {"images": images})
    run_adapt(source, tmp_path / "out", "data=npz", f"data.path={path}")
    predictions = rows(tmp_path / "out" / "predictions.csv")
    assert len(predictions) == 130
    assert all(float(row["confidence"]) > 0 for row in predictions)
    events = [
        json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    ]
    assert [event["ids"] for event in events if event["reason"] == "broken_image"] == [["70"]]


def test_what_taught_nothing_is_told(source: Path, tmp_path: Path, capsys: Capture) -> None:
    images = np.full((70, 32, 32, 3), np.nan, dtype=np.float32)
    metrics = run_adapt(
        source, tmp_path / "out", "data=npz", f"data.path={saved(tmp_path, {'images': images})}"
    )
    assert (metrics["batches"], metrics["skipped_batches"], metrics["broken_images"]) == (
        2,
        {"broken_image": 2},
        70,
    )
    told = capsys.readouterr().out
    assert "no update in 2 of 2 batches (broken image 2), 70 images with broken pixels" in told


def test_batch_statistics_of_single_images_are_warned_of(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    run_adapt(source, tmp_path / "out", "guard=off", "stream.batch_size=1", "data.target_images=4")
    assert "its own statistics tell little" in capsys.readouterr().err


def test_without_progress_a_run_says_its_result_alone(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    run_adapt(source, tmp_path / "quiet", "data.target_images=128")
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{tmp_path / 'quiet'}: balanced accuracy ")
    assert (shown.out.count("\n"), shown.err) == (1, "")
    aloud = ["data.target_images=128", "trainer.enable_progress_bar=true"]
    run_adapt(source, tmp_path / "aloud", *aloud)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("classes: 4 (round: 32")
    assert told[-1].startswith(f"{tmp_path / 'aloud'}: balanced accuracy ")


@pytest.mark.parametrize(("interrupted", "status"), [(True, 130), (False, 1)])
def test_a_trainers_exit_after_ctrl_c_is_told(
    capsys: Capture, interrupted: bool, status: int
) -> None:
    def work() -> None:
        try:
            raise KeyboardInterrupt if interrupted else ValueError
        except (KeyboardInterrupt, ValueError):
            sys.exit(1)

    if interrupted:
        assert entry.run(work, adapt.AdaptConfig, adapt.GROUPS, "", [], "stopped; go on") == status
        assert capsys.readouterr().err == "stopped; go on\n"
    else:
        with pytest.raises(SystemExit):
            entry.run(work, adapt.AdaptConfig, adapt.GROUPS, "", [])


def test_a_single_image_is_served(source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (65, 32, 32, 3), dtype=np.uint8)
    run_adapt(
        source, tmp_path / "out", "data=npz", f"data.path={saved(tmp_path, {'images': images})}"
    )
    served = rows(tmp_path / "out" / "predictions.csv")[-1]["served_by"]
    assert served in ("control", "source", "mixture")
    assert not rows(tmp_path / "out" / "trace.csv")[-1]["share_adapted"]


def refusal(program: Any, capture: Capture, *words: str) -> str:
    """The one sentence with which a program exits with status 2."""
    assert program.main([*QUICK, *words]) == 2
    lines = [line for line in capture.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_bad_input_gets_one_sentence(source: Path, tmp_path: Path, capsys: Capture) -> None:
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    small = saved(tmp_path, domain_arrays(), "small.npz")
    grey = saved(tmp_path, {"images": np.zeros((4, 32, 32), np.uint8)}, "grey.npz")
    empty = saved(tmp_path, {"images": np.zeros((0, 32, 32, 3), np.uint8)}, "empty.npz")
    one = saved(tmp_path, {**domain_arrays(), "labels": np.zeros(40, np.uint8)}, "one.npz")
    ours = f"source={source}"
    cases: list[tuple[Any, str, tuple[str, ...]]] = [
        (adapt, "source is missing", ()),
        (adapt, "does not exist", ("source=nowhere",)),
        (adapt, "not a source checkpoint of Holdfast", (f"source={foreign}",)),
        (adapt, "not a source checkpoint of Holdfast", (f"source={tmp_path / 'text.ckpt'}",)),
        (adapt, "did you mean tent", (ours, "method=tnt")),
        (
            adapt,
            "8x8 with 3 channel",
            (ours, "data=npz", f"data.path={small}", "data.target=there"),
        ),
        (adapt, "32x32 with 1 channel", (ours, "data=npz", f"data.path={grey}")),
        (adapt, "holds no images: images is 0x32x32x3", (ours, "data=npz", f"data.path={empty}")),
        (adapt, "does not exist", (ours, "data=npz", "data.path=absent.npz")),
        (
            adapt,
            "unknown option trainer.acelerator: did you mean accelerator",
            (ours, "trainer.acelerator=cpu"),
        ),
        (
            adapt,
            "lightning.Trainer refuses",
            (ours, "trainer.precision=17", f"output={tmp_path / 'p'}"),
        ),
        (adapt, "adapted.ckpt of Holdfast", (ours, f"start={foreign}")),
        (train, "1 class", ("data=npz", f"data.path={one}")),
        (train, "did you mean flip", (*TINY_TRAINING, "augment=[flop]")),
        (train, "belong together", (*TINY, "calibrate=only")),
        (train, "belong together", (*TINY_TRAINING, ours)),
        (train, "did you mean tent", (*TINY, "calibrate.methods=[tnt]")),
        (train, "other classes", (ours, "calibrate=only", "data=npz", f"data.path={small}")),
        (
            train,
            "is damaged, or no file of torch",
            (*TINY_TRAINING, f"weights={tmp_path / 'text.ckpt'}"),
        ),
        (train, "cannot be written", (*TINY_TRAINING, f"output={foreign}/below")),
    ]
    for program, message, words in cases:
        assert message in refusal(program, capsys, *words), words


def test_batch_statistics_of_one_value_are_refused_early(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = saved(tmp_path, {**domain_arrays()}, "small.npz")
    words = ["data=npz", f"data.path={path}", "model=resnet18", "epochs=1", "batch_size=4"]
    words += ["calibrate=off", f"output={tmp_path / 'deep'}"]
    assert train.main([*QUICK, *words]) == 0
    again = [
        f"source={tmp_path / 'deep'}",
        "data.target=there",
        "stream.batch_size=1",
        "method=tent",
        "method.normalization=batch",
    ]
    assert "one value per channel" in refusal(
        adapt, capsys, *again, f"output={tmp_path / 'refused'}"
    )
    assert not (tmp_path / "refused").exists()


@pytest.mark.gate
@pytest.mark.slow
def test_the_demo_writes_its_summary_and_a_page_that_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    summary = demo(**vars(DemoConfig(output=str(tmp_path), epochs=1, passes=1, images=640)))
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [(run["name"], run["guarded"]) for run in summary["runs"]] == [
        ("tent", False),
        ("tent", True),
        ("dsbr", True),
    ]
    assert set(summary["runs"][0]) == {
        "name",
        "guarded",
        "balanced_accuracy",
        "last_quarter",
        "alarms",
        "resets",
    }
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg ") == 8
    assert "Tent unguarded, at the end." in page
    assert (tmp_path / "clusters.png").stat().st_size > 10_000
    assert "://" not in page
    assert len(page) < 5e6
