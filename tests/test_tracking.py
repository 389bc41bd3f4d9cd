"""Runs as W&B and other loggers see them: offline files read back, lineage, secrets, what is
refused.
"""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import configure
from holdfast.adapting.outputs import log_inputs
from holdfast.callbacks.alerts import AlertConfig, Alerts
from holdfast.programs import adapt, benchmark, train
from holdfast.tta import tracking
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.results import metric_tables, picture_of, prediction_sample, table
from holdfast.tta.tracking import WandbConfig, create_loggers, finish, log_trace, own_name
from tests.callbacks.test_alerts import send
from tests.conftest import ACCELERATOR, TINY_TRAINING
from tests.wandb_file import read_table, read_wandb

Capture = pytest.CaptureFixture[str]
#: Words of a run that is logged.
WORDS = ["trainer.enable_progress_bar=false", f"trainer.accelerator={ACCELERATOR}"]
KEY, TOKEN = "0123456789abcdef" * 2 + "89abcdef", "hunter2-is-planted"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """W&B offline, with secrets in the environment; all that it writes elsewhere goes to this
    folder.
    """
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WARD_HOOK", f"http://nurse:{TOKEN}@127.0.0.1:1/?token={TOKEN}")
    return folder


def offline(folder: Path) -> tuple[dict[str, Any], Path]:
    """The one offline run of an output folder, and its file."""
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    return read_wandb(file), file


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_waited_for_in_vain_and_not_for_long(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    out = tmp_path / "out"
    out.mkdir()
    given: dict[str, Any] = {"name": "run", "job_type": "adapt", "settings": {}}
    started = time.monotonic()
    loggers = create_loggers(WandbConfig(mode="online"), out, **given)
    assert time.monotonic() < started + 30  # 8 s, and what a busy machine takes to start
    assert "did not answer in 8 s, so this run is logged offline" in caplog.text
    log_trace(loggers, 0, {"R": 1.0})
    finish(loggers)
    logged, _ = offline(out)
    assert logged
    with pytest.raises(InputError, match="W&B does not start"):
        create_loggers(WandbConfig(mode="online", fallback="refuse"), out, **given)


@pytest.mark.slow
def test_a_run_outlives_its_tracker(
    source: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    served, log = [], tracking.log_trace

    def then_kill(loggers: Any, batch: int, values: Any) -> None:
        log(loggers, batch, values)
        served.append(batch)
        if batch == 1:  # its service dies
            own = f"-{os.getpid()}.txt".encode()
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                words = path.read_bytes() if path.exists() else b""
                if b"wandb-core" in words and own in words:
                    os.kill(int(path.parent.name), signal.SIGKILL)
            time.sleep(1)

    monkeypatch.setattr("holdfast.callbacks.records.log_trace", then_kill)
    words = [*WORDS, f"source={source}", "method=tent", f"output={tmp_path / 'out'}"]
    started = time.monotonic()
    assert adapt.main([*words, "data.target_images=300"]) == 0
    assert time.monotonic() < started + 60
    assert len(served) == 5
    assert {"metrics.json", "audit.json", "adapted.ckpt"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def nothing_secret(folder: Path, *printed: str) -> None:
    """Neither what was written nor what was printed holds what the environment keeps."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for content in [*(path.read_bytes() for path in files), *(text.encode() for text in printed)]:
        assert KEY.encode() not in content
        assert TOKEN.encode() not in content


@pytest.mark.slow
@pytest.mark.gate
def test_a_source_is_followed_into_its_adaptation_and_no_secret_with_it(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [
        *WORDS,
        "wandb.project=trial",
        "wandb.group=ward3",
        "wandb.tags=[pilot]",
        "wandb.notes=a first look",
    ]
    source, out = tmp_path / "source", tmp_path / "out"
    assert train.main([*words, *TINY_TRAINING, "epochs=1", f"output={source}"]) == 0
    harm = ["method=tent", "guard.alert.url=env:WARD_HOOK", "wandb.images=3"]
    assert adapt.main([*words, *harm, f"source={source}", f"output={out}"]) == 0

    trained, _ = offline(source)
    assert [trained[key] for key in ("project", "run_group", "job_type")] == [
        "trial",
        "ward3",
        "train",
    ]
    assert trained["notes"] == "a first look"
    assert (trained["tags"], trained["exit"]) == (["pilot"], 0)
    assert trained["axes"] == {"train/*": "epoch", "val/*": "epoch"}
    assert [step["epoch"] for step in trained["history"] if "train/loss" in step] == [0]
    stem = {"conv1_stride": None, "max_pool": None, "shortcut": "B"}
    assert trained["config"]["model"] == {"kind": "compact", "norm": "batch", **stem}

    adapted, file = offline(out)
    assert (adapted["job_type"], adapted["axes"]) == ("adapt", {"adapt/*": "adapt/batch"})
    assert adapted["config"]["method"]["kind"] == "tent"
    assert adapted["config"]["method"]["optimizer"] == "adam"  # resolved, from auto
    assert [step["adapt/batch"] for step in adapted["history"] if "adapt/entropy" in step] == list(
        range(8)
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert adapted["summary"]["balanced_accuracy"] == metrics["balanced_accuracy"]

    tables = {
        name: read_table(adapted, file, name)
        for name in ("events", "classes", "groups", "predictions")
    }
    told = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [row["event"] for row in tables["events"]] == [event["event"] for event in told]
    assert "mode" in {row["event"] for row in tables["events"]}
    assert {row["class"]: row["sensitivity"] for row in tables["classes"]} == metrics["sensitivity"]
    assert [(row["split"], row["value"]) for row in tables["groups"]] == [("domain", "scanner_b")]
    assert len(tables["predictions"]) == 100
    assert set(tables["predictions"][0]) >= {
        "position",
        "id",
        "prediction",
        "confidence",
        "label",
        "served_by",
    }
    assert [step["images/count"] for step in adapted["history"] if "images/count" in step] == [3]
    assert any("trajectory/path" in step for step in adapted["history"])

    checkpoint = SourceCheckpoint.load(source)
    name = f"source-phantom-compact-{checkpoint.hash[:8]}"
    [(given, output)] = trained["artifacts"].items()
    taken = adapted["artifacts"][name]
    assert (given, output["type"], output["input"], set(output["files"])) == (
        name,
        "model",
        False,
        {"source.ckpt"},
    )
    assert (taken["digest"], taken["input"]) == (
        output["digest"],
        True,
    )  # one version, out of one run and into the other
    assert adapted["config"]["source_artifact"] == f"{name}@{output['digest']}"
    assert (
        Path(output["files"]["source.ckpt"]).parent != source
    )  # a copy, which a later run does not overwrite
    assert {"predictions.csv", "config.yaml"} < set(
        adapted["artifacts"]["predictions-out"]["files"]
    )
    assert set(adapted["artifacts"][f"adapted-{checkpoint.hash[:8]}"]["files"]) == {"adapted.ckpt"}

    nothing_secret(tmp_path, *capfd.readouterr())


def test_a_start_is_an_input_and_a_failed_run_is_marked(
    source: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, f"source={source}", "method=norm", "guard=off", "wandb.mode=disabled"]
    assert adapt.main([*words, f"output={tmp_path / 'first'}"]) == 0
    checkpoint = SourceCheckpoint.load(source)
    loggers = create_loggers(WandbConfig(), tmp_path, name="run", job_type="adapt", settings={})
    config = configure([*words, f"start={tmp_path / 'first' / 'adapted.ckpt'}"])

    def fail() -> None:
        try:
            log_inputs(loggers, Assembly.of(config, checkpoint))
            send(
                Alerts(AlertConfig(url="env:WARD_HOOK"), "run")
            )  # nobody listens there: the log says so
            raise ZeroDivisionError
        finally:
            finish(loggers)

    with pytest.raises(ZeroDivisionError):
        fail()
    content, _ = offline(tmp_path)
    assert content["exit"] == 1
    assert {key: item["input"] for key, item in content["artifacts"].items()} == {
        f"source-phantom-compact-{checkpoint.hash[:8]}": True,
        f"adapted-{checkpoint.hash[:8]}": True,
    }
    assert content["config"]["start_artifact"].startswith("adapted-")
    nothing_secret(tmp_path, *capfd.readouterr())


def test_a_benchmark_is_logged(source: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "phantom0").symlink_to(source)
    words = [
        "streams=[iid]",
        "shifts=[none]",
        "methods=[norm]",
        "rates=[1]",
        "policies=[on]",
        "images=128",
    ]
    words += [
        "processes=1",
        f"sources={tmp_path / 'sources'}",
        f"output={tmp_path / 'out'}",
    ]
    assert benchmark.main(words) == 0
    content, file = offline(tmp_path / "out")
    assert (content["job_type"], content["display_name"]) == ("benchmark", "out")
    assert content["axes"] == {"benchmark/*": "benchmark/cells"}
    assert content["history"][-2]["benchmark/done"] == 100
    assert content["summary"]["summary/ours/cells"] == 1
    assert [row["policy"] for row in read_table(content, file, "policies")] == ["ours", "unguarded"]
    assert read_table(content, file, "results")[0]["method"] == "norm"
    assert "regret/path" in content["history"][-1]
    assert {"results.csv", "summary.json"} < set(content["artifacts"]["benchmark-out"]["files"])


def test_secrets_are_refused_wherever_they_are_given(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.yaml").write_text(f"wandb:\n  api_key: {KEY}\n")
    words = [
        f"wandb.api_key={KEY}",
        f"WANDB_API_KEY={KEY}",
        f"wandb.entity={KEY}",
        f"wandb.tags=[a,local-{KEY}]",
    ]
    for word in [*words, f"logger.password={KEY}", str(tmp_path / "mine.yaml")]:
        assert train.main([*TINY_TRAINING, "epochs=1", word, f"output={tmp_path / 'out'}"]) == 2, (
            word
        )
        error = capsys.readouterr().err
        assert "environment" in error
        assert KEY not in error
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_resumed_or_started_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**options: Any) -> None:
        create_loggers(WandbConfig(**options), tmp_path, name="run", job_type="train", settings={})

    with pytest.raises(InputError, match=r"wandb\.id=ID"):
        WandbConfig(resume="must")
    with pytest.raises(InputError, match=r"wandb\.group=NAME"):
        start(resume="allow", id="abc")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(InputError, match=r"W&B does not start .*wandb\.mode=offline") as refused:
        start(mode="online")
    assert "short" not in str(refused.value).split("(")[0]
    with pytest.raises(InputError, match="negative"):
        WandbConfig(images=-1)


def test_the_environment_decides_where_to_but_not_against_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def started(**words: Any) -> SimpleNamespace:
        asked.append((words["mode"], words["id"], words["resume"]))
        return SimpleNamespace(dir=str(tmp_path))

    monkeypatch.setattr("wandb.init", started)
    monkeypatch.setattr(tracking, "_AXES", {"train": {}})
    monkeypatch.setattr(tracking, "WandbLogger", lambda experiment: experiment)
    for variable, options in (
        ("offline", {"mode": "online"}),
        ("online", {"id": "abc", "resume": "must"}),
        ("online", {"mode": "disabled"}),
        ("disabled", {"mode": "online"}),
    ):
        monkeypatch.setenv("WANDB_MODE", variable)
        create_loggers(WandbConfig(**options), tmp_path, name="run", job_type="train", settings={})  # type: ignore[arg-type]
    assert asked == [("offline", None, None), ("online", "abc", "must")]


def test_under_a_sweep_each_run_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert own_name("run") == "run"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert own_name("run") == "run-abc"


def test_tensorboard_gets_the_trace_and_the_figures(source: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = [f"source={source}", f"output={tmp_path}", "method=tent", "logger=[csv,tensorboard]"]
    assert adapt.main([*WORDS, *words]) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("adapt/entropy")] == list(range(8))
    assert events.Scalars("adapt/R")
    assert events.Scalars("balanced_accuracy")[0].value > 0


def test_mlflow_gets_the_trace_and_the_figures(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = [f"source={source}", f"output={tmp_path}", "method=tent", "logger=mlflow", "name=ward"]
    assert adapt.main([*WORDS, *words]) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("holdfast").experiment_id])
    assert (run.info.run_name, run.info.status) == ("ward", "FINISHED")
    assert run.data.params["method/kind"] == "tent"
    assert [
        point.step for point in client.get_metric_history(run.info.run_id, "adapt/entropy")
    ] == list(range(8))
    assert run.data.metrics["balanced_accuracy"] > 0


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        ("tensorboard", ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE")),
        ("mlflow", ("_MLFLOW_AVAILABLE",)),
    ],
)
def test_a_logger_that_is_not_installed_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, flags: tuple[str, ...]
) -> None:
    module = "lightning.fabric" if word == "tensorboard" else "lightning.pytorch"
    for flag in flags:
        monkeypatch.setattr(f"{module}.loggers.{word}.{flag}", False)
    with pytest.raises(
        InputError,
        match=re.escape(
            f'logger={word} needs a package that is not installed: pip install "holdfast[{word}]"'
        ),
    ):
        create_loggers(
            WandbConfig(), tmp_path, name="run", job_type="adapt", settings={}, others=word
        )


def test_unknown_loggers_are_refused(source: Path, tmp_path: Path, capsys: Capture) -> None:
    assert adapt.main([f"source={source}", "logger=tensorbord", f"output={tmp_path / 'out'}"]) == 2
    assert "did you mean tensorboard" in capsys.readouterr().err


def test_tables_of_metrics() -> None:
    metrics = {
        "sensitivity": {"a": 50.0, "b": 75.0},
        "auroc": {"macro": 80.0, "per_class": {"b": 80.0}},
        "domains": {"x": {"accuracy": 60.0, "auroc": {"macro": 70.0}, "sensitivity": {"a": 1.0}}},
        "subgroups": {"sex": {"f": {"images": 3, "balanced_accuracy": 55.0}}},
    }
    tables = metric_tables(metrics)
    assert tables["classes"][0] == {
        "class": "a",
        "sensitivity": 50.0,
        "specificity": None,
        "auroc": None,
    }
    assert tables["classes"][1]["auroc"] == 80.0
    assert tables["groups"] == [
        {"split": "domain", "value": "x", "accuracy": 60.0, "auroc/macro": 70.0},
        {"split": "sex", "value": "f", "images": 3, "balanced_accuracy": 55.0},
    ]
    assert metric_tables({}) == {"classes": [], "groups": []}
    mixed = table([{"batch": 1, "severity": 3}, {"batch": 2, "severity": "1..5", "more": 0.5}])
    assert mixed.columns == ["batch", "severity", "more"]
    assert mixed.data == [[1, "3", None], [2, "1..5", 0.5]]


def test_a_sample_of_predictions_is_even(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    lines = [f"{i},b,0.5,0.5,OK,adapted," for i in range(10)] + ["broken,,,,,,unreadable"]
    path.write_text(
        "id,prediction,confidence,prob_a,verdict,served_by,reason\n" + "\n".join(lines) + "\n"
    )
    labels = torch.tensor([0] * 5 + [-1] * 5)
    sample = prediction_sample(path, labels, ["a", "b"], 3)
    assert [(row["position"], row["id"], row["label"]) for row in sample] == [
        (0, "0", "a"),
        (4, "4", "a"),
        (8, "8", ""),
    ]
    assert len(prediction_sample(path, labels, ["a", "b"], 50)) == 10
    assert prediction_sample(path, labels, ["a", "b"], 0) == []


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((3, 32, 20), (32, 20, 3)),
        ((1, 9, 9), (9, 9, 1)),
        ((5, 600, 300), (200, 100, 1)),
        ((1, 4, 8, 8), (8, 8, 1)),
    ],
)
def test_pictures_of_images(shape: tuple[int, ...], shown: tuple[int, ...]) -> None:
    image = torch.full(shape, 2.0)
    image[..., 0] = torch.nan
    picture = picture_of(image)
    assert picture.shape == shown
    assert (int(picture.min()), int(picture.max())) == (0, 255)
