"""Ranks and their intervals: paired, over seeds and images, and honest where there is nothing to
draw.
"""

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.benchmarks.grid import Setting
from holdfast.benchmarks.kept import PREDICTION_KEYS, kept, packed, unpacked
from holdfast.benchmarks.ranking import outcomes, ranked, resampled
from holdfast.tta.metrics import balanced_accuracy

STREAM = Setting("d", "t", "compact", "none", 0, "iid", 64, 0)._asdict()


def row(method: str = "tent", policy: str = "on", **more: Any) -> dict[str, Any]:
    scores = {"source": 70.0, "control": 80.0, "unguarded": 78.0, "guarded": 82.0}
    return {**STREAM, "method": method, "lr": 0.01, "policy": policy, **scores, **more}


def stream(rng: np.random.Generator, sizes: int = 400, **right: float) -> dict[str, torch.Tensor]:
    """Labels of three classes, and models that are right with these chances."""
    labels = torch.from_numpy(rng.integers(0, 3, sizes))
    said = {
        name: torch.where(torch.from_numpy(rng.random(sizes) < chance), labels, (labels + 1) % 3)
        for name, chance in right.items()
    }
    return {"labels": labels, "images": torch.arange(sizes), **said}


def test_numbers_are_packed_and_unpacked() -> None:
    values = np.array([0, 3, -1, 70_000])
    assert unpacked(packed(values)).tolist() == values.tolist()
    assert len(packed(np.random.default_rng(0).integers(0, 4, 3000))) < 2500


def test_resamples_have_the_spread_of_fresh_samples() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [100, 300])
    right = rng.random(400) < 0.8
    scores = resampled(labels, np.arange(400), {"a": right, "b": right, "c": ~right}, 2000, rng)
    rates = [right[labels == label].mean() for label in (0, 1)]
    expected = 50 * np.sqrt(rates[0] * (1 - rates[0]) / 100 + rates[1] * (1 - rates[1]) / 300)
    assert scores["a"].std() == pytest.approx(expected, rel=0.1)
    assert scores["a"].mean() == pytest.approx(50 * sum(rates), abs=0.3)
    assert (scores["a"] == scores["b"]).all()  # the same draw: their difference is certain
    assert np.allclose(scores["a"] + scores["c"], 100)


def test_an_image_that_shows_again_is_no_new_evidence() -> None:
    rng = np.random.default_rng(0)
    labels, right = np.tile(rng.integers(0, 2, 200), 9), np.tile(rng.random(200) < 0.8, 9)
    once = resampled(labels[:200], np.arange(200), {"a": right[:200]}, 1000, rng)["a"].std()
    often = resampled(labels, np.tile(np.arange(200), 9), {"a": right}, 1000, rng)["a"].std()
    assert often == pytest.approx(once, rel=0.15)


def test_unlabelled_images_count_for_nothing() -> None:
    labels = np.array([0, 1, -1, -1])
    scores = resampled(
        labels,
        np.arange(4),
        {"a": np.array([True, True, False, False])},
        50,
        np.random.default_rng(0),
    )
    assert (scores["a"] == 100).all()


def test_methods_are_ranked_against_the_control_with_paired_intervals() -> None:
    rng = np.random.default_rng(0)
    rows, predictions = [], []
    for seed in (0, 1, 2):
        said = stream(rng, source=0.6, control=0.8, off=0.75, on=0.9)
        names = {**STREAM, "seed": seed}
        scores = {
            name: balanced_accuracy(p, said["labels"], 3)
            for name, p in said.items()
            if name not in ("labels", "images")
        }
        rows.append(
            row(
                seed=seed,
                source=scores["source"],
                control=scores["control"],
                unguarded=scores["off"],
                guarded=scores["on"],
            )
        )
        of_stream = {name: said[name] for name in ("labels", "images", "source", "control")}
        predictions += kept({**names, "method": None, "lr": None}, of_stream)
        predictions += kept(
            {**names, "method": "tent", "lr": 0.01}, {name: said[name] for name in ("off", "on")}
        )
    assert set(PREDICTION_KEYS) <= set(predictions[0])
    on, off = ranked(rows, predictions)
    assert [(on.method, on.policy), (off.method, off.policy)] == [("tent", "on"), ("tent", "off")]
    assert on.interval is not None
    assert off.interval is not None
    assert 0 < on.interval[0] < on.gain < on.interval[1] < 25
    assert off.interval[0] < off.gain < off.interval[1] < 2
    assert (on.outcomes, off.outcomes) == ((3, 0, 0), (0, 1, 2))
    assert on.cells == 3
    assert on.regret == pytest.approx(-on.gain)  # the control is the better one
    assert ranked(rows, predictions) == [on, off]  # the draw is seeded
    # Without predictions only the seeds are drawn, and one seed alone gives no interval.
    seeds = ranked(rows, [])[0]
    assert seeds.interval is not None
    assert on.interval[1] - on.interval[0] > seeds.interval[1] - seeds.interval[0]
    assert ranked(rows[:1], [])[0].interval is None


def test_a_cell_alone_counts_once_whatever_the_guards() -> None:
    entries = ranked([row(), row(policy="periodic", guarded=60.0)], [])
    assert [(entry.policy, entry.cells) for entry in entries] == [
        ("on", 1),
        ("off", 1),
        ("periodic", 1),
    ]
    assert entries[-1].worst == 20


def test_wins_ties_and_losses() -> None:
    assert outcomes([1.5, 1.0, 0.0, -1.0, -1.1, -9.0]) == (1, 3, 2)
