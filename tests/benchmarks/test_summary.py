"""The figures, against values worked out by hand; and the running loss."""

from typing import Any

import pytest
import torch

from holdfast.benchmarks.grid import Setting
from holdfast.benchmarks.guard import regret_against_gain
from holdfast.benchmarks.measures import loss_before, running_loss
from holdfast.benchmarks.summary import (
    as_lines,
    figures,
    gained,
    harmed,
    normalization_regret,
    policies_of,
    summarize,
    with_references,
)
from holdfast.benchmarks.tables import NORMALIZATIONS, Row

STREAM = Setting("phantom", "scanner_b", "compact", "none", 0, "iid", 64, 0)._asdict()


def row(**values: Any) -> Row:
    """A cell of a calm method on a stream whose source scores 70 and whose control scores 80."""
    calm = {
        **STREAM,
        **{"method": "tent", "lr": 0.001, "policy": "on", "source": 70.0, "control": 80.0},
        **{"source_last": 71.0, "control_last": 81.0, "unguarded": 80.5, "unguarded_last": 81.0},
        **{"guarded": 80.5, "guarded_last": 81.0, "alarms": 0, "resets": 0},
        **{"first_alarm_batch": None, "loss_before_alarm": None, "seconds": 1.0},
    }
    return {**calm, **values}


CALM = row()
FALSE_RESET = row(alarms=1, resets=1, first_alarm_batch=4, loss_before_alarm=0.0, guarded=80.0)
GAIN = row(unguarded=90.0, unguarded_last=92.0, guarded=88.0)
CAUGHT = row(
    unguarded=60.0,
    unguarded_last=50.0,
    guarded=79.5,
    alarms=1,
    resets=1,
    first_alarm_batch=9,
    loss_before_alarm=4.9,
)
LATE = row(
    unguarded=60.0,
    unguarded_last=77.9,
    guarded=75.0,
    alarms=2,
    resets=2,
    first_alarm_batch=20,
    loss_before_alarm=5.1,
)
SERVED_OTHERWISE = row(unguarded=70.0, unguarded_last=60.0, guarded=79.2)
MISSED = row(unguarded=70.0, unguarded_last=60.0, guarded=70.0)
ROWS = [CALM, FALSE_RESET, GAIN, CAUGHT, LATE, SERVED_OTHERWISE, MISSED]


def test_harm_and_gain_are_told_by_the_better_of_source_and_control() -> None:
    assert [harmed(r) for r in ROWS] == [False, False, False, True, True, True, True]
    assert [gained(r) for r in ROWS] == [False, False, True, False, False, False, False]
    assert not harmed(row(unguarded_last=78.0))
    assert harmed(row(unguarded_last=77.0, source_last=80.1, control_last=79.0))
    assert not gained(row(unguarded=81.0))


def test_figures_of_hand_made_cells() -> None:
    assert figures(ROWS) == {
        "cells": 7,
        "harm": 4,
        "gain": 1,
        "detected_in_time": 1 / 4,
        "harm_avoided": 2 / 4,
        "detected_or_avoided": 2 / 4,
        "false_reset_rate": 1 / 3,
        "below_rate": 2 / 7,
        "worst_regret": 10.0,
        "mean_regret": pytest.approx((-0.5 + 0 - 8 + 0.5 + 5 + 0.8 + 10) / 7),
        "kept_gain": pytest.approx(0.8),
        "median_kept_gain": pytest.approx(0.8),
    }


def test_figures_without_a_cell_are_undefined() -> None:
    measured = figures([CALM])
    assert [measured[name] for name in ("detected_in_time", "harm_avoided", "kept_gain")] == [
        None
    ] * 3
    assert figures([])["worst_regret"] is None


def test_the_summary_has_ours_and_the_published_apart() -> None:
    references = [
        {
            **STREAM,
            "source_last": 71.0,
            "control_last": 81.0,
            **dict.fromkeys(NORMALIZATIONS, 70.0),
            "auto": 69.0,
        }
    ]
    results = [*ROWS, row(policy="periodic", guarded=70.0), row(seed=1)]
    summary = summarize(results, references)
    assert summary["ours"]["cells"] == len(ROWS), "a stream without references is left out"
    assert summary["ours"]["normalization_regret"] == 1.0
    periodic = summary["policies"]["periodic"]
    assert (periodic["worst_regret"], periodic["below_rate"]) == (10.0, 1.0)
    assert periodic["normalization_regret"] is None, "guards of others choose none"
    assert summary["unguarded"]["cells"] == 1, "policies share the unguarded run of a cell"
    head, lines = as_lines(policies_of(summary), "policy")
    assert [line[0] for line in lines] == ["ours", "periodic", "unguarded"]
    assert lines[1][head.index("worst")] == "10.0"
    assert lines[1][head.index("normalisation regret")] == "–"
    rows = with_references(results, references)
    assert len(regret_against_gain(rows).axes) == 2


def test_normalization_regret_is_the_mean_over_streams_that_have_a_choice() -> None:
    scores = {**dict.fromkeys(NORMALIZATIONS, 60.0), "ema_0.02": 90.0}
    streams = [{**scores, "auto": 88.0}, {**scores, "auto": 91.0}, {**scores, "auto": None}]
    assert normalization_regret(streams) == pytest.approx(0.5)
    assert normalization_regret(streams[2:]) is None


def test_running_loss_is_the_difference_of_balanced_accuracies_once_the_stream_is_long_enough() -> (
    None
):
    labels = torch.arange(1024) % 2
    source, control = torch.zeros_like(labels), labels.clone()
    control[:256] = (
        0  # source: 50 %; control: all of class 0, and in the end three quarters of class 1
    )
    collapsed = labels.clone()
    collapsed[512:] = 1
    losses = running_loss(collapsed, [source, control], labels, 64)
    assert len(losses) == 16
    assert losses[7] == pytest.approx(-25.0), (
        "all right so far, where the control has missed half of a class"
    )
    assert losses[-1] == pytest.approx(87.5 - 75)


def test_running_loss_starts_gently_and_ends_at_the_last_short_batch() -> None:
    labels = torch.zeros(1000, dtype=torch.long)
    labels[::50] = 1
    wrong = labels.clone()
    wrong[0] = 0  # the first image of a rare class: a tenth of those in 512 images
    losses = running_loss(wrong, [labels], labels, 64)
    assert len(losses) == 16
    assert losses[0] == pytest.approx(50 / (0.02 * 512))
    assert losses[-1] == pytest.approx(50 / 20)


def test_loss_before_an_alarm_is_the_worst_until_then() -> None:
    losses = torch.tensor([-1.0, 2.0, 1.0, 8.0])
    assert [loss_before(alarm, losses) for alarm in (0, 1, 3, 4)] == [0.0, 0.0, 2.0, 8.0]
