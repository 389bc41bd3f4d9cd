"""Thresholds from healthy streams: the tail's fit, the ranges, and a checkpoint calibrated anew."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.callbacks import CollapseGuard, GuardConfig
from holdfast.callbacks.calibrated import calibrated, levels_of
from holdfast.callbacks.calibration import (
    CalibrationConfig,
    QuickCalibrationConfig,
    tails,
    watched_streams,
)
from holdfast.callbacks.guard.modes import Memory, summed
from holdfast.callbacks.guard.signals import BY_NAME, SIGNALS, Values
from holdfast.callbacks.settings import Tuned
from holdfast.datamodules import load_images
from holdfast.datamodules.bootstrap import FAMILIES, ORDERS, bootstrapped
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.programs import train
from holdfast.training.config import configure
from holdfast.tta.calibration import STREAM_BATCHES, WATCH_CHANCE, fit_tail, tail_value
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from tests.conftest import QUICK, TINY
from tests.datamodules.test_npz import domain_arrays, saved


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


@pytest.mark.parametrize("name", ["R.level", "R.limit", "drift.level", "gain.limit"])
def test_calibrated_numbers_are_no_stricter_than_the_default_and_not_too_loose(name: str) -> None:
    config = GuardConfig()
    for value in (-1.0, 0.0, 0.1, 1.0, 2.0):
        found = calibrated(calibration(**{name: value}), name, 0.05, config)
        assert found == pytest.approx(min(max(value, 0.05), config.tuned.loosest * 0.05))
    assert calibrated(calibration(**{name: 1.0}), "vanished.limit", 0.3, config) == 0.3
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
        [{"R": 1 - depth, "drift": 0.02, "gain": 0.0} for depth in (0.001, 0.002, float(level))]
        for level in np.linspace(0.05, 0.3, 20)
    ]
    for trace in traces:
        for values in trace:
            assert isinstance(values, dict)
            values["drift"] = 0.03  # between half of its level and the level: R counts as it is
    found = tails(traces)
    assert set(found) == {"R.level", "R.limit", "drift.level", "gain.level", "gain.limit"}
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
    assert found["gain.level"]["start"] == pytest.approx(0.03), "nothing spoke for what was learned"
    assert found["gain.limit"]["start"] == 0, "below the level, which is its default"


def test_the_guard_takes_what_is_set_then_what_is_calibrated_then_the_default() -> None:
    known = calibration(
        **{"R.level": 0.08, "R.limit": 0.2, "drift.level": 0.05, "vanished.level": 9}
    )
    default = {s.name: (s.level, s.limit) for s in SIGNALS if math.isfinite(s.level)}

    def numbers(config: GuardConfig, known: Any = None) -> dict[str, tuple[float, float | None]]:
        levels = levels_of(config, known)
        assert levels.limits.keys() <= levels.levels.keys()
        return {name: (level, levels.limits.get(name)) for name, level in levels.levels.items()}

    assert numbers(GuardConfig()) == default
    assert CollapseGuard("ab").levels == levels_of(GuardConfig(), None)
    found = numbers(GuardConfig(), known)
    assert CollapseGuard("ab", calibration=known).levels == levels_of(GuardConfig(), known)
    assert found["R"] == (0.08, 0.2)
    assert found["drift"] == (0.05, None), "is watched, and raises no alarm"
    assert found["vanished"] == default["vanished"], "is not calibrated"
    assert numbers(GuardConfig(limits={"R": 0.5}), known)["R"] == (0.08, 0.5)
    # Sums are calibrated beyond the calibrated level, so another leaves the limit at its default.
    assert numbers(GuardConfig(levels={"R": 0.2}), known)["R"] == (0.2, BY_NAME["R"].limit)
    assert numbers(GuardConfig(levels={"R": 0.2}, limits={"R": 0.7}), known)["R"] == (0.2, 0.7)


def test_levels_are_looser_than_their_default_by_so_much_at_most_unless_they_are_set() -> None:
    known = calibration(**{"R.level": 9.0, "gain.limit": 9.0, "drift.level": 9.0})
    for loosest in (1.0, 2.5):
        levels = levels_of(GuardConfig(tuned=Tuned(loosest=loosest)), known)
        for name in ("R", "drift"):
            assert levels.levels[name] == pytest.approx(loosest * BY_NAME[name].level)
        assert levels.limits["gain"] == pytest.approx(loosest * 0.06)
    free = levels_of(GuardConfig(levels={"R": 7.0, "drift": 0.0}, limits={"gain": 8.0}), known)
    assert (free.levels["R"], free.levels["drift"], free.limits["gain"]) == (7.0, 0.0, 8.0)
    assert free.limits["R"] == BY_NAME["R"].limit


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
            share = counts.max() / 400
            assert 0.5 < share < 0.99
            rest = np.sort(counts)[:3] / 400
            assert rest == pytest.approx([(1 - share) / 3] * 3, abs=0.08), "the rest come alike"
        elif name == "subset":
            assert 2 <= (counts > 0).sum() <= 3
            assert changes > 100, "mixed"
        elif name == "blocks":
            assert any(in_blocks(labels, size) for size in (10, 20, 40, 80, 160))
        elif name == "dirichlet":
            by_batch = [np.bincount(part, minlength=4).max() for part in labels.reshape(-1, 20)]
            assert np.mean(by_batch) > 11
        assert len(drawn.shifts) == (2 if name == "recurring" else 1)
        assert (drawn.which is not None) == (name == "recurring")
        if drawn.which is not None:
            turns = np.flatnonzero(np.diff(drawn.which)) + 1
            assert set(drawn.which.tolist()) == {0, 1}
            assert turns[0] in (20, 40, 60, 80)
            assert (np.diff(turns) == turns[0]).all()


def in_blocks(labels: np.ndarray, size: int) -> bool:
    """Whether images of one class come in blocks of this size, every class once a round."""
    blocks = labels.reshape(-1, size) if len(labels) % size == 0 else None
    if blocks is None:
        whole = len(labels) - len(labels) % size
        return in_blocks(labels[:whole], size) and len(set(labels[whole:].tolist())) == 1
    first = blocks[:, 0]
    rounds = [first[start : start + 4] for start in range(0, len(first), 4)]
    once = all(len(set(part.tolist())) == len(part) for part in rounds)
    return bool((blocks == first[:, None]).all()) and once


def test_domains_take_turns_in_one_order() -> None:
    assert [name for name, order in ORDERS.items() if order.recurring] == ["recurring"]


def test_a_streams_draw_depends_on_its_number_and_the_seed_alone() -> None:
    images = load_images("phantom", PhantomConfig(val_images=40), "val")
    few, more = (list(bootstrapped(images, count, 40, 10, seed=3)) for count in (5, 9))
    for (_, one), (_, same) in zip(few, more, strict=False):
        assert (one.rows == same.rows).all()
    other = next(iter(bootstrapped(images, 1, 40, 10, seed=4)))[1]
    assert (few[0][1].rows != other.rows).any()


def test_a_quick_calibration_has_every_order_under_every_method_in_fewer_images() -> None:
    words = ["data=phantom", "calibrate=quick"]
    quick = configure(words).calibrate.options
    whole = configure([*words[:1], "calibrate=on"]).calibrate.options
    assert isinstance(quick, QuickCalibrationConfig)
    assert type(whole) is CalibrationConfig
    for config in (quick, whole):
        assert config.streams >= len(ORDERS) * len(config.methods)
    assert quick.streams % len(ORDERS) == 0
    assert quick.streams * quick.batches < whole.streams * whole.batches / 3
    assert (quick.methods, quick.batch_size) == (whole.methods, whole.batch_size)
    with pytest.raises(InputError, match=r"calibrate\.streams must be at least 6"):
        QuickCalibrationConfig(streams=5)


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
    told = capsys.readouterr().err
    assert "the guard keeps its default thresholds" in told
    assert message in told
    assert SourceCheckpoint.load(tmp_path / "out").calibration is None


def test_a_training_that_is_stopped_while_it_calibrates_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holdfast.training.describe.calibrate", stop)
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


def test_what_is_watched_is_the_method_as_it_is_published(source: Path) -> None:
    """Nobody is asked but the adapted model and its control."""
    checkpoint = SourceCheckpoint.load(source)
    images = load_images("phantom", PhantomConfig(val_images=120), "val")
    config = CalibrationConfig(streams=7, batches=4)
    watched = list(watched_streams(checkpoint, images, config, trainer={"accelerator": "cpu"}))
    assert [one.order for one in watched] == [*ORDERS]
    for one in watched:
        assert len(one.trace) == 4, "every batch is looked at"
        assert all(values.get("R") for values in one.trace[2:])


@pytest.mark.slow
@pytest.mark.gate
def test_an_old_checkpoint_is_calibrated_anew(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = SourceCheckpoint.load(source)
    content = torch.load(source / "source.ckpt", weights_only=True)
    for name in ("calibration", "layer_moments", "fisher", "checksum"):
        del content[name]
    torch.save(content, tmp_path / "source.ckpt")
    small = ["calibrate.streams=12", "calibrate.batches=4", "calibrate.batch_size=32"]
    assert train.main([*QUICK, "calibrate=only", f"source={tmp_path}", *small]) == 0
    assert "of them healthy; limits of the signals: R" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]
    new = SourceCheckpoint.load(tmp_path)
    assert new.hash == old.hash
    for found, expected in ((new.fisher, old.fisher), (new.layer_moments, old.layer_moments)):
        torch.testing.assert_close(found, expected)
    assert new.calibration is not None
    known = new.calibration
    assert 12 == known["streams"] >= known["healthy"]
    assert bool(known["tails"]) == (known["healthy"] >= 6)
    guard = CollapseGuard(new.class_names, calibration=known)
    for signal in SIGNALS:
        if math.isfinite(signal.level):
            assert signal.level <= guard.levels.levels[signal.name] <= 4 * signal.level
