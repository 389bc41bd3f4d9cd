"""From a tree like ChestX-ray14's to probabilities of findings: train, adapt, score, report."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

import holdfast
from holdfast.callbacks.preflight import EXIT
from holdfast.programs import adapt, train
from holdfast.tta.checkpoint import SourceCheckpoint
from tests.callbacks.test_report import checked
from tests.conftest import QUICK
from tests.datamodules.test_files import write_picture
from tests.datamodules.test_published import write_table

HEADER = [
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"),
    *("Patient Gender", "View Position"),
]
FINDINGS = ("Effusion", "Mass")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Radiographs of 80 patients, one PA and one AP each: an effusion is a bright base, a mass a
    bright spot, and AP has less contrast.
    """
    root, draw = tmp_path_factory.mktemp("chestxray14"), np.random.default_rng(0)
    rows, names = [], []
    for number in range(160):
        name, patient = f"{number // 2:08d}_{number % 2:03d}.png", number // 2
        found = [
            finding for finding, every in zip(FINDINGS, (2, 3), strict=True) if not patient % every
        ]
        pixels = draw.integers(40, 80, (16, 16))
        pixels[11:] += 100 * ("Effusion" in found)
        pixels[2:6, 2:6] += 120 * ("Mass" in found)
        view = ("PA", "AP")[number % 2]
        picture = (pixels if view == "PA" else 60 + pixels // 2).astype(np.uint8)
        write_picture(root / "images_001" / "images" / name, picture)
        rows.append([name, "|".join(found) or "No Finding", 0, patient, "058Y", "F", view])
        names.append(name)
    write_table(root / "Data_Entry_2017.csv", HEADER, rows)
    (root / "train_val_list.txt").write_text("\n".join(names[:120]))
    (root / "test_list.txt").write_text("\n".join(names[120:]))
    return root


@pytest.fixture(scope="module")
def finding_source(radiographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of PA radiographs."""
    folder = tmp_path_factory.mktemp("findings") / "source"
    words = [
        *("data=chestxray14", f"data.root={radiographs}", "data.findings=[Effusion,Mass]"),
        *("data.source=PA", "data.target=AP", "data.shares=[.6,.3,.1]", "epochs=6", "lr=3e-3"),
        *("calibrate=off", "batch_size=16", "data.size=16", f"output={folder}"),
    ]
    assert train.main([*QUICK, *words]) == 0
    return folder


def test_training_keeps_figures_and_thresholds(finding_source: Path) -> None:
    checkpoint = SourceCheckpoint.load(finding_source)
    assert tuple(checkpoint.class_names) == FINDINGS
    assert checkpoint.meaning.name == "multilabel"
    assert len(checkpoint.meaning.described["options"]["thresholds"]) == 2
    metrics = json.loads((finding_source / "metrics.json").read_text())
    assert metrics["auroc"]["macro"] > 70
    assert set(metrics["f1"]["per_class"]) == set(FINDINGS)
    assert metrics["val_auroc"] > 50


def test_findings_are_looked_at_before_a_stream_starts(
    finding_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"source={finding_source}", f"output={tmp_path}", "preflight=only"]
    status = adapt.main([*QUICK, *words])
    found = json.loads((tmp_path / "preflight.json").read_text())
    assert status == EXIT[found["advice"]]
    assert "of the findings are less certain" in capsys.readouterr().out
    for view in found["views"].values():
        absent, present = view["marginal"][::2], view["marginal"][1::2]
        assert [a + b for a, b in zip(absent, present, strict=True)] == pytest.approx([1, 1])


def test_adaptation_leaves_a_probability_and_a_decision_for_each(
    finding_source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = ["method=dsbr", "guard=off", "stream.batch_size=8", "report=true", "bootstrap=20"]
    assert adapt.main([*QUICK, f"source={finding_source}", *words, f"output={output}"]) == 0
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    thresholds = SourceCheckpoint.load(finding_source).meaning.described["options"]["thresholds"]
    for row in rows:
        for name, threshold in zip(FINDINGS, thresholds, strict=True):
            assert row[name] == str(int(float(row[f"prob_{name}"]) >= threshold))
            assert row[f"true_{name}"] in "01"
    metrics = json.loads((output / "metrics.json").read_text())
    assert set(metrics["auroc"]["per_class"]) == set(FINDINGS)
    assert {"macro", "micro"} < set(metrics["average_precision"])
    assert set(metrics["against"]) == {"source", "control"}
    low, high = metrics["intervals"]["auroc"]
    assert low <= metrics["auroc"]["macro"] <= high
    _, page = checked(output / "report.html")
    assert {"Findings", "Over the stream", "Settings"} <= set(page.titles)
    assert (output / "trajectory.png").is_file()


def test_our_guard_watches_findings(finding_source: Path, tmp_path: Path) -> None:
    words = [f"source={finding_source}", "guard=on", "method=tent", f"output={tmp_path / 'run'}"]
    assert adapt.main([*QUICK, *words]) == 0
    with (tmp_path / "run" / "trace.csv").open() as file:
        trace = list(csv.DictReader(file))
    assert {row["mode"] for row in trace} <= {"adapting", "hedging", "resting", "holding"}
    assert all(math.isfinite(float(row["drift"])) for row in trace if row["looked"] == "1")
    assert all(0 <= float(row["entropy"]) <= math.log(2) for row in trace), "a finding is binary"
    with (tmp_path / "run" / "predictions.csv").open() as file:
        assert all(row["verdict"] for row in csv.DictReader(file))


def test_from_python_figures_and_tables_come_back(finding_source: Path, tmp_path: Path) -> None:
    quiet = {"trainer": {"enable_progress_bar": False}, "wandb": {"mode": "disabled"}}
    result = holdfast.adapt(
        source=finding_source, method="tent", guard="off", output=tmp_path / "run", **quiet
    )
    assert len(result.predictions["prob_Mass"]) == 20
    assert set(result.predictions["Mass"]) <= {0.0, 1.0}
    assert "auroc" in repr(result)


def test_a_source_of_findings_is_calibrated(finding_source: Path, tmp_path: Path) -> None:
    small = ["calibrate.streams=14", "calibrate.batches=4", "calibrate.batch_size=16"]
    words = ["calibrate=only", f"source={finding_source}", *small, "calibrate.methods=[tent]"]
    assert train.main([*QUICK, *words, f"output={tmp_path}"]) == 0
    known = SourceCheckpoint.load(tmp_path).calibration
    assert known is not None
    assert known["streams"] == 14
    # Where a stream shows no finding, or one in all images, its AUROC is not defined.
    assert 0 < known["healthy"] <= 14
