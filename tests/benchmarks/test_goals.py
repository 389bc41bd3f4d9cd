"""Goals that are met and missed, by cells worked out by hand, and figures by axis."""

from typing import Any

from holdfast.benchmarks.goals import by_axis, judged, markdown, name_of
from holdfast.benchmarks.summary import alone, figures
from tests.benchmarks.test_summary import CAUGHT, FALSE_RESET, GAIN, MISSED, row


def of(goal: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    [line] = [line for line in lines if line["goal"] == goal]
    return line


def test_a_goal_names_the_cells_that_fall_short() -> None:
    lines = judged([GAIN, CAUGHT, MISSED, FALSE_RESET])
    worst = of("worst regret", lines)
    assert (worst["met"], worst["bound"], worst["value"]) == (False, "≤ 3.0", "10.0")
    assert worst["cells"] == [name_of(MISSED)]
    assert name_of(MISSED) == (
        "phantom scanner_b, compact, iid, 64 a batch, tent 0.001, seed 0: 10.0"
    )
    assert of("below", lines)["value"] == "25%"
    assert of("harm averted", lines)["cells"] == [name_of(MISSED)]
    assert of("false resets", lines)["cells"] == [name_of(FALSE_RESET)]
    assert of("kept gain, median", lines) == {
        **{"goal": "kept gain, median", "bound": "≥ 95%", "value": "80%", "met": False},
        "cells": [name_of(GAIN)],
    }
    assert of("mean regret", lines)["cells"] == []


def test_few_classes_have_a_goal_of_their_own() -> None:
    lost = row(guarded=76.0)
    for order in ("one", "subset"):
        lines = judged([row(), {**lost, "stream": order}])
        assert of("worst regret", lines)["met"] is True
        assert of("worst regret, few classes", lines)["met"] is True
    assert of("worst regret", judged([lost]))["met"] is False
    assert of("worst regret, few classes", judged([lost]))["met"] is None


def test_figures_by_axis() -> None:
    other = row(data="nuclei", target="fluor_360", network="group", guarded=90.0)
    rows = [GAIN, MISSED, other]
    groups = by_axis(rows, alone(rows))
    assert groups["data"]["nuclei"]["ours"] == figures([other])
    assert groups["network"]["compact"]["ours"] == figures([GAIN, MISSED])
    assert groups["data"]["phantom"]["unguarded"]["cells"] == 1, "one cell under two names"
    summary = {
        **{"ours": figures(rows), "policies": {}, "unguarded": figures(alone(rows))},
        **{"goals": judged(rows), "groups": groups},
    }
    text = markdown(summary)
    assert all(name in text for name in ("image set", "nuclei, unguarded", "network", "missed"))
    assert "batch size" not in text, "it has one value"
    assert "| worst regret | ≤ 3.0 | 10.0 | missed | 1 |" in text
    assert f"Worst, worst regret:\n\n- {name_of(MISSED)}" in text
