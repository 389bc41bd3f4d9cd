"""Thresholds from healthy streams: the tail's fit, the ranges, and a checkpoint calibrated anew."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from callbacks import CollapseGuard, GuardConfig
from callbacks.calibrated import calibrated, levels_of, offsets_of
from callbacks.calibration import CalibrationConfig, Watched, accuracies, offsets, tails
from callbacks.guard.evidence import shares
from callbacks.guard.modes import Memory, summed
from callbacks.guard.signals import BY_NAME, SIGNALS, Values
from callbacks.settings import Tuned
from datamodules import load_images
from datamodules.bootstrap import FAMILIES, ORDERS, bootstrapped
from datamodules.phantom import PhantomConfig
from tests.conftest import QUICK, TINY
from tests.datamodules.test_npz import domain_arrays, saved
from tta.calibration import STREAM_BATCHES, WATCH_CHANCE, fit_tail, tail_value
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


@pytest.mark.parametrize("name", ["R.level", "R.limit", "drift.level", "drift.limit"])
def test_calibrated_numbers_are_no_stricter_than_the_default_and_not_too_loose(name: str) -> None:
    config = GuardConfig()
    for value in (-1.0, 0.0, 0.1, 1.0, 2.0):
        found = calibrated(calibration(**{name: value}), name, 0.05, config)
        assert found == pytest.approx(min(max(value, 0.05), config.tuned.loosest * 0.05))
    assert calibrated(calibration(**{name: 1.0}), "gain.limit", 0.3, config) == 0.3
    assert calibrated(None, name, 0.05, config) == 0.05
    looser = GuardConfig(tuned=Tuned(loosest=6.0))
    assert calibrated(calibration(**{name: 9.0}), name, 0.05, looser) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["source"], "never adapts"), (["tnet"], "did you mean tent"), ([], "is empty")],
)
def test_methods_that_tell_nothing_are_refused(methods: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CalibrationConfig(methods=methods)


def test_the_rate_is_that_of_a_long_stream_and_a_levels_is_fixed() -> None:
    tail = {"start": 0.1, "share": 0.5, "scale": 0.02, "shape": 0.0}
    known = {"batches": 20, "tails": {"R.limit": tail, "R.level": tail}}
    for rate in (0.01, 0.05):
        config = GuardConfig(false_alarm=rate)
        limit = 0.1 + 0.02 * math.log(0.5 / (rate * 20 / STREAM_BATCHES))
        assert calibrated(known, "R.limit", 0.1, config) == pytest.approx(limit)
        level = 0.1 + 0.02 * math.log(0.5 / WATCH_CHANCE)
        assert calibrated(known, "R.level", 0.1, config) == pytest.approx(level)


def test_limits_are_of_the_sums_beyond_the_calibrated_levels() -> None:
    traces: list[list[Values]] = [
        [{"R": 1 - depth, "drift": 0.02, "gain": 0.1} for depth in (0.001, 0.002, float(level))]
        for level in np.linspace(0.05, 0.3, 20)
    ]
    for trace in traces:
        for values in trace:
            assert isinstance(values, dict)
            values["drift"] = 0.03  # between half of its level and the level: R counts as it is
    found = tails(traces)
    assert set(found) == {
        f"{signal.name}.{part}"
        for signal in SIGNALS
        if signal.calibrated
        for part in ("level", "limit")
    }
    assert found["R.level"]["start"] == pytest.approx(np.linspace(0.05, 0.3, 20)[10])
    levels = levels_of(GuardConfig(), {"batches": 1, "tails": found})
    assert levels.levels["R"] == pytest.approx(4 * BY_NAME["R"].level)
    most = []
    for trace in traces:
        memory = Memory()
        for values in trace:
            memory = summed(values, levels, memory, 1)
        most.append(memory.sums["R"])
    assert found["R.limit"] == pytest.approx(fit_tail(most))
    assert found["drift.level"]["start"] == pytest.approx(0.03)
    assert found["drift.limit"]["start"] == 0


def test_the_guard_takes_what_is_set_then_what_is_calibrated_then_the_default() -> None:
    known = calibration(
        **{"R.level": 0.08, "R.limit": 0.2, "drift.level": 0.05, "vanished.level": 9}
    )
    default = {s.name: (s.level, s.limit) for s in SIGNALS if s.limit is not None}

    def numbers(config: GuardConfig, known: Any = None) -> dict[str, tuple[float, float]]:
        levels = levels_of(config, known)
        return {name: (levels.levels[name], levels.limits[name]) for name in levels.levels}

    assert numbers(GuardConfig()) == default
    assert CollapseGuard("ab").levels == levels_of(GuardConfig(), None)
    found = numbers(GuardConfig(), known)
    assert CollapseGuard("ab", calibration=known).levels == levels_of(GuardConfig(), known)
    assert found["R"] == (0.08, 0.2)
    assert found["drift"] == (0.05, BY_NAME["drift"].limit)
    assert found["vanished"] == default["vanished"], "is not calibrated"
    assert numbers(GuardConfig(limits={"R": 0.5}), known)["R"] == (0.08, 0.5)
    # Sums are calibrated beyond the calibrated level, so another leaves the limit at its default.
    assert numbers(GuardConfig(levels={"R": 0.2}), known)["R"] == (0.2, BY_NAME["R"].limit)
    assert numbers(GuardConfig(levels={"R": 0.2}, limits={"R": 0.7}), known)["R"] == (0.2, 0.7)


def stream(
    order: str, evidence: list[list[float]], right: list[float], names: tuple[str, ...]
) -> Watched:
    return Watched(order, [], torch.tensor(evidence), torch.tensor(right), names, True)


def lost(streams: list[Watched], offset: dict[str, float]) -> float:
    """The accuracy that shares of trust leave lying."""
    left = []
    for each in streams:
        for look, row in enumerate(each.evidence, 1):
            votes = {
                name: float(vote) + offset.get(name, 0.0)
                for name, vote in zip(each.names, row, strict=True)
            }
            right = dict(zip(each.names, each.accuracies.tolist(), strict=True))
            share = shares(votes, look)
            left.append(max(right.values()) - sum(share[n] * right[n] for n in share))
    return sum(left) / len(left)


def test_offsets_lose_less_and_leave_batch_statistics_at_zero() -> None:
    names = ("source", "batch", "corrected")
    # The source looks better than it is, and so does a candidate that is worst of all.
    streams = [
        stream("random", [[0.5, 0.0, 0.8]] * 4, [0.6, 0.9, 0.3], names),
        stream("blocks", [[1.5, 0.0, 0.7]] * 4, [0.9, 0.5, 0.4], names),
    ]
    found = offsets(streams)
    assert found["batch"] == 0
    assert found["corrected"] < -0.3
    assert lost(streams, found) < 0.7 * lost(streams, {})
    assert offsets([]) == {}
    assert offsets([stream("random", [[0.0]], [0.9], ("source",))]) == {}
    agreeing = [stream("random", [[0.0, 9.0, 0.0]] * 4, [0.5, 0.9, 0.5], names)]
    assert all(abs(value) < 0.05 for value in offsets(agreeing).values()), "nothing to mend"


def test_offsets_go_by_what_is_known_of_the_order() -> None:
    known = {"offsets": {"unknown": {"source": 0.5}, "mixed": {"source": -1.0}}}
    assert offsets_of(known, "unknown") == {"source": 0.5}
    assert offsets_of(known, "mixed") == {"source": -1.0}
    assert offsets_of(known, "correlated") == {}
    assert offsets_of(None, "unknown") == {}
    assert offsets_of({"tails": {}}, "unknown") == {}, "a checkpoint of before"
    guard = CollapseGuard("ab", GuardConfig(order="mixed"), calibration={**calibration(), **known})
    assert guard.experts.offsets == {"source": -1.0}


def test_accuracies_are_means_by_order() -> None:
    names = ("source", "batch")
    found = accuracies(
        [
            stream("one", [[0.0, 0.0]], [0.5, 0.7], names),
            stream("one", [[0.0, 0.0]], [0.7, 0.9], names),
            stream("random", [[0.0, 0.0]], [1.0, 0.0], names),
        ]
    )
    assert found == {
        "random": {"source": 100.0, "batch": 0.0},
        "one": {"source": 60.0, "batch": 80.0},
    }


def test_bootstrapped_streams_come_in_every_order_and_the_same_by_seed() -> None:
    images = load_images("phantom", PhantomConfig(val_images=80), "val")
    count = 2 * len(ORDERS)
    streams = list(bootstrapped(images, count, 400, 20, seed=1))
    again = list(bootstrapped(images, count, 400, 20, seed=1))
    for (name, one), (same, other) in zip(streams, again, strict=True):
        assert name == same
        assert (one.rows == other.rows).all()
        assert one.shifts == other.shifts
    assert [name for name, _ in streams] == [*ORDERS] * 2
    assert any(
        (a.rows != b.rows).any() for (_, a), (_, b) in zip(streams[:7], streams[7:], strict=True)
    )
    for name, drawn in streams:
        labels = images.labels[drawn.rows]
        counts = np.bincount(labels, minlength=4)
        changes = int((np.diff(labels) != 0).sum())
        assert (counts.max() == 400) == (name == "one")
        if name in ("random", "recurring"):
            assert counts.min() > 60
            assert changes > 250
        elif name == "skewed":
            assert counts.max() > 0.5 * 400
        elif name == "subset":
            assert 2 <= (counts > 0).sum() <= 3
        elif name == "blocks":
            runs = np.diff(np.flatnonzero(np.diff(labels)))
            assert changes < 45
            assert (runs % runs.min() == 0).all()
        elif name == "dirichlet":
            by_batch = [np.bincount(part, minlength=4).max() for part in labels.reshape(-1, 20)]
            assert np.mean(by_batch) > 11
        assert len(drawn.shifts) == (2 if name == "recurring" else 1)


def test_shifts_are_of_random_families_and_strengths() -> None:
    images = load_images("phantom", PhantomConfig(val_images=40), "val")
    drawn = [s for _, one in bootstrapped(images, 200, 4, 4, seed=0) for s in one.shifts]
    parts = [part for shift in drawn if shift is not None for part in shift.parts]
    assert {name for name, _ in parts} == set(FAMILIES)
    assert {severity for _, severity in parts} == {1, 2, 3, 4, 5}
    assert {0 if shift is None else len(shift.parts) for shift in drawn} == {0, 1, 2}


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
    assert "of them healthy; limits of the signals: R" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]
    new = SourceCheckpoint.load(tmp_path)
    assert new.hash == old.hash
    for found, expected in ((new.fisher, old.fisher), (new.layer_moments, old.layer_moments)):
        torch.testing.assert_close(found, expected)
    assert new.calibration is not None
    known = new.calibration
    assert 12 == known["streams"] >= known["healthy"]
    assert bool(known["tails"]) == (known["healthy"] >= 6)
    assert set(known["offsets"]) == {"unknown", "mixed", "correlated"}
    for by_candidate in known["offsets"].values():
        assert by_candidate.keys() == {"source", "batch", "corrected"}
        assert by_candidate["batch"] == 0
        assert all(math.isfinite(value) for value in by_candidate.values())
    assert known["accuracies"].keys() == ORDERS.keys()
    guard = CollapseGuard(new.class_names, calibration=known)
    for signal in SIGNALS:
        if signal.limit is not None:
            assert signal.level <= guard.levels.levels[signal.name] <= 4 * signal.level
