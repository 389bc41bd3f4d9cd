"""The sensitivity to the guard's constants: what is changed, what comes of it, and a tiny run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.adapting.config import configure
from holdfast.benchmarks import cell, sensitivity
from holdfast.benchmarks.sensitivity import (
    Change,
    changes_of,
    compared,
    left_out,
    markdown,
    of_sets,
)
from holdfast.programs import benchmark
from tests.benchmarks.test_summary import row


@dataclass
class Toy:
    """Constants by the names of options that the guard has."""

    decay: float = 0.7
    patience: int = 2
    reset: bool = True
    nothing: float = 0.0


def test_each_number_is_changed_by_a_fifth_and_whole_ones_by_one() -> None:
    assert changes_of(Toy()) == [
        Change("decay", 0.7, 0.56, "on guard.tuned.decay=0.56"),
        Change("decay", 0.7, 0.84, "on guard.tuned.decay=0.84"),
        Change("patience", 2, 1, "on guard.tuned.patience=1"),
        Change("patience", 2, 3, "on guard.tuned.patience=3"),
    ]
    assert [change.other for change in changes_of(Toy(patience=50))[2:]] == [40, 60]


def test_a_change_is_held_against_the_same_cells() -> None:
    less, more, refused, _ = changes_of(Toy())
    rows = [
        *(row(guarded=80.0), row(guarded=78.0, seed=1), row(guarded=60.0, seed=2)),
        *(row(guarded=80.2, policy=less.policy), row(guarded=77.9, seed=1, policy=less.policy)),
        *(row(guarded=79.0, policy=more.policy), row(guarded=76.9, seed=1, policy=more.policy)),
    ]
    lines = compared(rows, [less, more, refused])
    assert [line["cells"] for line in lines] == [2, 2, 0]
    assert lines[0]["mean_change"] == pytest.approx(-0.05)
    assert lines[0]["worst_change"] == pytest.approx(0.1)
    assert [line.get("beyond") for line in lines] == [False, True, None]
    text = markdown(lines)
    assert "1 constants change" in text
    assert text.endswith(": decay")
    assert text.count("beyond") == 1


def test_a_change_is_chosen_without_the_data_set_that_it_is_told_of() -> None:
    less, more, partly, _ = changes_of(Toy())
    rows = [
        *(row(guarded=80.0), row(guarded=70.0, data="chest"), row(guarded=75.0, data="nuclei")),
        *(
            row(guarded=score, data=data, policy=less.policy)
            for data, score in (("phantom", 60.0), ("chest", 79.0), ("nuclei", 78.0))
        ),
        *(
            row(guarded=score, data=data, policy=more.policy)
            for data, score in (("phantom", 81.0), ("chest", 71.0), ("nuclei", 74.0))
        ),
        row(guarded=99.0, policy=partly.policy),
        row(guarded=99.0, policy="on guard.tuned.rest=9"),  # of an earlier study
    ]
    lines = left_out(rows, [less, more, partly])
    chosen = {line["data"]: (line["chosen"], line["mean_regret"]) for line in lines}
    regrets = {line["data"]: line["as it is"]["mean_regret"] for line in lines}
    # Without the phantom the first change is far the best, and it is what ruins the phantom.
    assert chosen["phantom"] == ("decay 0.56", pytest.approx(regrets["phantom"] + 20))
    assert chosen["chest"] == ("as it is", regrets["chest"])
    assert chosen["nuclei"] == ("decay 0.84", pytest.approx(regrets["nuclei"] + 1))
    assert "| phantom | decay 0.56 | 1 |" in of_sets(lines)
    assert left_out(rows[:1], [less]) == []


@pytest.mark.slow
@pytest.mark.gate
def test_only_guarded_runs_are_run_for_a_change(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "phantom0").symlink_to(source)
    words = [
        *("streams=[blocks]", "shifts=[none]", "methods=[tent]", "rates=[10]", "images=128"),
        *("processes=1", f"output={tmp_path / 'out'}", f"sources={tmp_path / 'sources'}"),
        *("study=sensitivity", "constants=[decay,patience]"),
    ]
    passes: list[Any] = []
    run = cell.run
    monkeypatch.setattr(
        cell,
        "run",
        lambda batches, words: passes.append(words) or run(batches, words),
    )
    toy = changes_of(Toy())
    monkeypatch.setattr(sensitivity, "changes_of", lambda tuned: toy)
    assert benchmark.main(words) == 0
    # The references (two, and five choices of normalisation), the unguarded method, five guards.
    assert len(passes) == 2 + 5 + 1 + 5
    tried = [
        (options.tuned.decay, options.tuned.patience)
        for options in (configure(words).guard.options for words in passes if "guard=on" in words)
    ]
    assert {(0.56, 2), (0.84, 2), (0.7, 1), (0.7, 3)} < set(tried)
    assert "| decay | 0.7 | 0.56 | 1 |" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "summary.json").read_text())["changes"]
    assert [(line["constant"], line["cells"]) for line in told] == [
        *[("decay", 1)] * 2,
        *[("patience", 1)] * 2,
    ]
    before = len(passes)
    assert benchmark.main(words) == 0
    assert len(passes) == before
