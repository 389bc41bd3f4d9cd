"""Thresholds from healthy streams: the tail's fit, the ranges, and a checkpoint calibrated anew."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callbacks.verdict import Statistics, Thresholds

import train
from callbacks import CollapseGuard, GuardConfig
from callbacks.calibration import CalibrationConfig, tails
from datamodules import load_images
from datamodules.bootstrap import ORDERS, bootstrapped
from datamodules.phantom import PhantomConfig
from tests.conftest import QUICK, TINY
from tests.datamodules.test_npz import domain_arrays, saved
from tta.calibration import RANGES, STREAM_BATCHES, calibrated, fit_tail, tail_value
from tta.checkpoint import SourceCheckpoint
from tta.errors import InputError


@pytest.mark.parametrize("chance", [0.05, 0.01, 0.002])
def test_the_tail_of_an_exponential_law(chance: float) -> None:
    values = np.random.default_rng(0).exponential(2.0, 20_000).tolist()
    assert tail_value(fit_tail(values), chance) == pytest.approx(-2 * math.log(chance), rel=0.06)


def test_the_tail_of_a_pareto_law() -> None:
    uniform = np.random.default_rng(0).random(50_000)
    values = (uniform**-0.15 - 1) / 0.15  # a generalised Pareto law of shape .15 and scale 1
    tail = fit_tail(values.tolist())
    assert tail["shape"] == pytest.approx(0.15, abs=0.05)
    assert tail_value(tail, 0.001) == pytest.approx((0.001**-0.15 - 1) / 0.15, rel=0.06)


def test_three_dozen_values_bound_a_normal_law_from_above() -> None:
    """The rate of false alarms holds on average over calibrations, though one in a hundred was in
    none of them.
    """
    rng = np.random.default_rng(0)
    limits = [tail_value(fit_tail(rng.normal(size=36).tolist()), 0.01) for _ in range(200)]
    exceeded = [0.5 * math.erfc(limit / math.sqrt(2)) for limit in limits]
    assert 0.001 < sum(exceeded) / len(exceeded) < 0.012


@pytest.mark.parametrize("values", [[0.0] * 10, [0.3], [0.0] * 9 + [1.0]])
def test_tails_of_little(values: list[float]) -> None:
    tail = fit_tail(values)
    assert all(math.isfinite(value) for value in tail.values())
    assert tail_value(tail, 0.001) >= tail_value(tail, 0.1) >= tail["start"]


def calibration(**values: float) -> dict[str, Any]:
    points = {
        name: {"start": value, "share": 0.0, "scale": 0.0, "shape": 0.0}
        for name, value in values.items()
    }
    return {"batches": 20, "tails": points}


def test_thresholds_stay_within_their_ranges() -> None:
    for name, (low, high) in RANGES.items():
        for value in (-1.0, 0.0, 0.1, 1.0, 2.0):
            threshold = calibrated(calibration(**{name: value}), name, 0.01)
            assert threshold is not None
            assert low <= threshold <= high
    assert calibrated(calibration(watch_ratio=0.1), "watch_ratio", 0.01) == pytest.approx(0.9)
    assert calibrated(calibration(watch_ratio=0.1), "alarm_shortfall", 0.01) is None
    assert calibrated(None, "watch_ratio", 0.01) is None


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["source"], "never adapts"), (["tnet"], "did you mean tent"), ([], "is empty")],
)
def test_methods_that_tell_nothing_are_refused(methods: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CalibrationConfig(methods=methods)


def test_the_rate_is_that_of_a_long_stream() -> None:
    tail = {"start": 0.1, "share": 0.5, "scale": 0.02, "shape": 0.0}
    threshold = calibrated(
        {"batches": 20, "tails": {"alarm_shortfall": tail}}, "alarm_shortfall", 0.01
    )
    assert threshold == pytest.approx(0.1 + 0.02 * math.log(0.5 / (0.01 * 20 / STREAM_BATCHES)))


def test_the_alarm_sums_beyond_the_calibrated_watch() -> None:
    traces = [
        [Statistics(ratio=1 - depth, drift=0.2) for depth in (0.01, 0.02, level)]
        for level in np.linspace(0.05, 0.3, 20)
    ]
    found = tails(traces, 20)
    assert {"watch_ratio", "watch_drift", "alarm_shortfall"} <= found.keys()
    assert found["watch_ratio"]["start"] == pytest.approx(np.sort(np.linspace(0.05, 0.3, 20))[10])
    watch = calibrated({"batches": 20, "tails": found}, "watch_ratio", 0.01)
    assert watch == RANGES["watch_ratio"][0]  # and so the sums are what R lacked to it
    assert found["alarm_shortfall"]["start"] == pytest.approx(
        max(0.0, watch - (1 - found["watch_ratio"]["start"]))
    )


def test_the_guard_takes_what_is_set_then_what_is_calibrated_then_the_default() -> None:
    known = calibration(watch_ratio=0.1, watch_drift=0.11, alarm_shortfall=0.25)
    assert CollapseGuard("ab").thresholds == Thresholds()
    guard = CollapseGuard("ab", calibration=known)
    assert guard.thresholds.watch_ratio == pytest.approx(0.9)
    assert (guard.thresholds.watch_drift, guard.thresholds.alarm_shortfall) == (0.11, 0.25)
    assert GuardConfig(alarm_shortfall=0.5).thresholds(known).alarm_shortfall == 0.5
    # Sums are calibrated beyond the calibrated watch, so another watch leaves them at their
    # default.
    assert GuardConfig(watch_ratio=0.7).thresholds(known) == Thresholds(watch_ratio=0.7)
    with pytest.raises(InputError, match="false_alarm"):
        GuardConfig(false_alarm=0.0)


def test_bootstrapped_streams_are_mixed_skewed_and_in_blocks_and_the_same_by_seed() -> None:
    images = load_images("phantom", PhantomConfig(val_images=80), "val")
    streams = list(bootstrapped(images, 6, 400, seed=1))
    again = list(bootstrapped(images, 6, 400, seed=1))
    assert all(
        (a.rows == b.rows).all() and a.shifts == b.shifts
        for a, b in zip(streams, again, strict=True)
    )
    for number, stream in enumerate(streams):
        labels = images.labels[stream.rows]
        share = np.bincount(labels, minlength=4).max() / len(labels)
        changes = int((np.diff(labels) != 0).sum())
        assert (share == 0.85, changes == 3) == (
            number % len(ORDERS) == 1,
            number % len(ORDERS) == 2,
        )


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(4, "at least two classes"), (64, "the 6 labelled validation images are fewer than a batch")],
)
def test_what_cannot_be_calibrated_is_trained_all_the_same(
    batch_size: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = domain_arrays()
    arrays["labels"][arrays["split"] == "val"] = 0
    words = [
        "data=npz",
        f"data.path={saved(tmp_path, arrays)}",
        "epochs=1",
        "batch_size=4",
        "fisher_images=0",
        f"calibrate.batch_size={batch_size}",
    ]
    assert train.main([*QUICK, *words, f"output={tmp_path / 'out'}"]) == 0
    told = capsys.readouterr().out
    assert "the guard keeps its default thresholds" in told
    assert message in told
    assert SourceCheckpoint.load(tmp_path / "out").calibration is None


def test_a_training_that_is_stopped_while_it_calibrates_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "calibrate", stop)
    small = ["calibrate.streams=6", "calibrate.batches=4", "calibrate.batch_size=32"]
    assert train.main([*QUICK, *TINY, *small, "epochs=1", f"output={tmp_path}"]) == 130
    assert not (tmp_path / "source.ckpt").exists(), "a source.ckpt that is there is whole"
    monkeypatch.undo()
    assert (
        train.main(
            [
                *QUICK,
                *small,
                "calibrate=only",
                f"source={tmp_path / 'trained.ckpt'}",
                f"output={tmp_path}",
            ]
        )
        == 0
    )
    assert SourceCheckpoint.load(tmp_path).class_names


def test_an_old_checkpoint_is_calibrated_anew(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = SourceCheckpoint.load(source)
    content = torch.load(source / "source.ckpt", weights_only=True)
    for name in ("calibration", "layer_moments", "fisher", "checksum"):
        del content[name]
    torch.save(content, tmp_path / "source.ckpt")
    small = ["calibrate.streams=12", "calibrate.batches=9", "calibrate.batch_size=32"]
    assert train.main([*QUICK, "calibrate=only", f"source={tmp_path}", *small]) == 0
    assert "healthy streams" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]
    new = SourceCheckpoint.load(tmp_path)
    assert new.hash == old.hash
    for found, expected in ((new.fisher, old.fisher), (new.layer_moments, old.layer_moments)):
        torch.testing.assert_close(found, expected)
    assert new.calibration is not None
    assert new.calibration["streams"] + new.calibration["left_out"] == 12
    assert {"watch_ratio", "watch_drift", "alarm_shortfall"} <= new.calibration["tails"].keys()
