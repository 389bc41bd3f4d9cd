"""The study of the paper's claims: measures by hand, its points, and a tiny one from end to end."""

import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.benchmarks import cell, passes, tables
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.grid import BALANCED, settings
from holdfast.benchmarks.measures import measures
from holdfast.benchmarks.pages import Spread
from holdfast.benchmarks.paper import against_control, at, banded, markdown, over_targets
from holdfast.benchmarks.plan import Plan, PlannedStream, create_plan, variant_of
from holdfast.benchmarks.tables import RUN_KEYS, RUNS, Row, key_of
from holdfast.programs import benchmark
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from tests.conftest import ROOT

#: What names a cell.
KEYS = RUN_KEYS[:-1]
Capture = pytest.CaptureFixture[str]

STREAM = {
    **{"data": "phantom", "target": "scanner_b", "network": "compact", "shift": "none"},
    **{"severity": 0, "stream": BALANCED, "batch_size": 64, "images": 2048, "seed": 0},
}


def row(method: str, **values: Any) -> Row:
    """A row at the centre; references have neither optimiser nor rate."""
    reference = method in ("source", "norm")
    how = {
        "method": method,
        "optimizer": None if reference else "adam",
        "lr": None if reference else 0.01,
        "policy": "off",
    }
    scores = {"beta": 0.1, "tv": 0.2, "balanced_accuracy": 80.0, "auroc": 90.0, "largest": 30.0}
    return {
        **STREAM,
        **how,
        **scores,
        **{f"{name}_last": value for name, value in scores.items()},
        "seconds": 1.0,
        **values,
    }


# Measures


def test_measures_of_a_stream_and_of_its_last_quarter() -> None:
    labels = torch.tensor([0, 1] * 4)
    said = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0])
    confidence = torch.tensor([0.9, 0.9, 0.8, 0.8, 0.7, 0.9, 0.8, 0.6])
    probabilities = torch.stack(
        [torch.where(said == c, confidence, 1 - confidence) for c in (0, 1)], 1
    )
    measured = measures(probabilities, labels, ("a", "b"))
    assert measured["beta"] == pytest.approx(
        (5 / 8 * math.log(5 / 4) + 3 / 8 * math.log(3 / 4)) / math.log(2), abs=1e-6
    )
    assert (measured["tv"], measured["balanced_accuracy"], measured["auroc"]) == (0.125, 87.5, 100)
    assert (measured["beta_last"], measured["tv_last"], measured["balanced_accuracy_last"]) == (
        1,
        0.5,
        50,
    )


def test_measures_that_are_undefined_are_none() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    nothing = measures(probabilities, torch.tensor([-1, -1]), ("a", "b"))
    assert set(nothing.values()) == {None}
    assert set(
        measures(probabilities[:0], torch.tensor([], dtype=torch.long), ("a", "b")).values()
    ) == {None}
    one_class = measures(probabilities[:1].repeat(4, 1), torch.tensor([0, 0, -1, 0]), ("a", "b"))
    assert (
        one_class["beta"],
        one_class["tv"],
        one_class["balanced_accuracy"],
        one_class["auroc"],
    ) == (0, 0, 100, None)
    broken = measures(torch.full((4, 2), math.nan), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    assert (broken["beta"], broken["tv"]) == (None, None)


# Points


CONFIG = ROOT / "configs" / "benchmark" / "paper.yaml"


def plan_of(*words: str) -> Plan:
    """The plan for command-line words."""
    return create_plan(entry.configured(BenchmarkConfig, {}, ["study=paper", *words]))


def test_one_axis_at_a_time() -> None:
    parts = [
        "{}",
        "{shifts: [none], methods: [dsbr_estimated]}",
        "{shifts: [none], rates: [adam 0.001, sgd 0.025]}",
        "{shifts: [none], images: 256, methods: [source, dsbr]}",
        "{shifts: [none], batch_sizes: [4], methods: [source, dsbr]}",
    ]
    words = (
        *("methods=[source,norm,tent,dsbr]", "rates=[adam 0.01]", "images=64", "seeds=[3]"),
        *("streams=[balanced]", "shifts=[none,contrast]", f"parts=[{', '.join(parts)}]"),
    )
    points = {
        (stream.setting.shift, stream.setting.batch_size, stream.images): set(cases)
        for stream, cases in plan_of(*words)
    }
    references = {("source", 1), ("norm", 1)}
    centre = {("tent", "adam 0.01"), ("dsbr", "adam 0.01")}
    others = {(name, rate) for name in ("tent", "dsbr") for rate in ("adam 0.001", "sgd 0.025")}
    assert points == {
        ("none", 64, 64): references | centre | others | {("dsbr_estimated", "adam 0.01")},
        ("contrast", 64, 64): references | centre,
        ("none", 64, 256): {("source", 1), ("dsbr", "adam 0.01")},
        ("none", 4, 64): {("source", 1), ("dsbr", "adam 0.01")},
    }
    assert all(len(set(cases)) == len(cases) for _, cases in plan_of(*words)), "norm is there once"


def test_a_part_may_have_targets_of_its_own() -> None:
    words = (
        "data.targets=[phantom/scanner_b,phantom/scanner_c]",
        "parts=[{}, {targets: [phantom/scanner_c], batch_sizes: [4]}]",
    )
    narrow = [stream.setting for stream, _ in plan_of(*words) if stream.setting.batch_size == 4]
    assert {setting.target for setting in narrow} == {"scanner_c"}


def test_the_shipped_plan_is_what_the_page_says() -> None:
    config = entry.configured(BenchmarkConfig, {}, [str(CONFIG)])
    cells = {
        key_of({**stream.setting._asdict(), "images": stream.images, **cell.names}, KEYS)
        for part in config.parts
        for stream, cell in cells_of(config.of_part(part))
    }
    rows = tables.read(ROOT / "docs" / "evidence" / "paper" / "results.csv")
    assert cells == {key_of(row, KEYS) for row in rows}
    assert len(cells) == 960


def cells_of(config: BenchmarkConfig) -> Iterator[tuple[PlannedStream, cell.Cell]]:
    """The cells of a part, whether its data is there or not."""
    axes = (config.shifts, config.severities, config.streams, config.seeds)
    for setting in settings(config.data.targets, *axes, batch_sizes=config.batch_sizes):
        for method, rate in product(config.methods, config.rates):
            found = cell.create_cell(variant_of(config, method), rate, "", (), 64)
            yield PlannedStream(setting, config.images), found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rates=[rmsprop 0.1]", "unknown optimizer"),
        ("parts=[{methods: [dsbr_1]}]", "unknown method"),
        ("parts=[{speed: 3}]", "unknown option of parts"),
        ("parts=[{targets: [nucli/fluor_360]}]", "unknown data set of parts"),
        ("streams=[balance]", "did you mean balanced"),
        ("severities=[9]", "1..5"),
        ("rates=[0]", "above 0"),
        ("images=0", "at least 1"),
        ("shifts=[]", "is empty"),
    ],
)
def test_what_it_refuses(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        entry.configured(BenchmarkConfig, {}, ["study=paper", word])


def test_an_unknown_study_and_the_help(tmp_path: Path, capsys: Capture) -> None:
    assert benchmark.main(["study=papre", f"output={tmp_path}"]) == 2
    assert "study" in capsys.readouterr().err
    assert benchmark.main(["study=paper", "--help"]) == 0
    assert "parts=" in capsys.readouterr().out


# What the rows say


def test_rows_at_the_centre_and_along_an_axis() -> None:
    config = BenchmarkConfig(study="paper", rates=["adam 0.01"], images=2048)
    rows = [
        row("norm"),
        row("tent"),
        row("tent", optimizer="sgd", lr=0.025),
        row("tent", images=512),
        row("norm", images=512),
    ]
    assert at(rows, config) == rows[:2]
    assert at(rows, config, optimizer="sgd", lr=0.025) == [rows[0], rows[2]]
    assert at(rows, config, images=512) == rows[3:]


def test_scores_of_masks_are_refused_where_pages_say_balanced_accuracy() -> None:
    with pytest.raises(InputError, match=r"scored by dice: take study=measured"):
        markdown([row("tent", metric="dice")], BenchmarkConfig(study="paper"))


@pytest.mark.parametrize(("task", "figure"), [("segmentation", "dice"), ("multilabel", "auroc")])
def test_masks_and_findings_are_refused_before_a_model_is_trained(
    task: str, figure: str, tmp_path: Path, capsys: Capture
) -> None:
    words = ["study=paper", f"data.words=[data.task={task}]", "data.targets=[phantom/scanner_b]"]
    assert benchmark.main([*words, f"output={tmp_path / 'out'}"]) == 2
    assert f"some runs are scored by {figure}: take study=measured" in capsys.readouterr().err
    assert not list(tmp_path.rglob("source.ckpt"))


def test_bands_count_growth_and_loss_against_the_control() -> None:
    rows = [
        *(
            row("source", beta=0.5),
            row("norm", beta=0.05, beta_last=0.05, balanced_accuracy_last=80.0),
        ),
        row("tent", beta_last=0.4, balanced_accuracy_last=70.0),
        row("dsbr", beta_last=0.08, balanced_accuracy_last=79.5),
        row("tent", seed=1),
    ]

    def told(reference: str) -> list[tuple[Any, ...]]:
        names = ("method", "seed", "band", "amplified", "worse")
        return [tuple(found[name] for name in names) for found in banded(rows, reference)]

    high, low = 2, 0
    assert told("source") == [("tent", 0, high, True, True), ("dsbr", 0, high, True, False)]
    assert told("norm") == [("tent", 0, low, True, True), ("dsbr", 0, low, True, False)]
    assert against_control(rows)[2]["balanced_accuracy_last"] == -10


def test_means_over_seeds_and_targets() -> None:
    assert Spread.of([]) is None
    assert Spread.of([None, 2.0]) == (2.0, None)
    assert Spread.of([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert Spread.of([1.0, math.inf]) == (math.inf, None)
    rows = [
        row("tent", auroc=80.0),
        row("tent", auroc=90.0, seed=1),
        row("tent", auroc=65.0, target="scanner_c"),
    ]
    assert over_targets(rows, "auroc") == 75
    assert over_targets([*rows, row("tent", auroc=None, target="scanner_d")], "auroc") is None


def test_what_is_infinite_or_undefined_is_shown() -> None:
    rows = [row("source"), row("norm", beta_last=math.inf), row("tent", auroc_last=None)]
    config = BenchmarkConfig(
        study="paper", rates=["adam 0.01"], images=2048, streams=[BALANCED, "prevalence"]
    )
    assert "∞" in markdown(rows, config)
    assert "–" in markdown(rows, config)
    assert markdown([], config) == ""


# From end to end


@pytest.fixture
def words(source: Path, tmp_path: Path) -> list[str]:
    """Four streams of two batches, and four of batches of two images, on the tests' source
    model.
    """
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "phantom0").symlink_to(source)
    return [
        *(
            "study=paper",
            "methods=[source,norm,tent,dsbr]",
            "streams=[balanced,prevalence]",
            "shifts=[none]",
            "policies=[off]",
            "rates=[adam 0.01]",
            "images=64",
        ),
        *(
            "batch_sizes=[32]",
            "variants.dsbr_0={kind: dsbr, ema: 0}",
            "parts=[{}, {methods: [dsbr_0]}, {batch_sizes: [16], methods: [source,norm,dsbr]}, "
            "{images: 128, methods: [source,norm,dsbr]}]",
            "processes=1",
            f"sources={tmp_path / 'sources'}",
        ),
    ]


def results(folder: Path) -> list[Row]:
    """The results, sorted, without what the clock says."""
    rows = [{**found, "seconds": None} for found in tables.read(folder / "results.csv")]
    return sorted(rows, key=lambda found: key_of(found, RUN_KEYS))


@pytest.mark.slow
def test_a_tiny_study(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    append, run = tables.append, passes.run
    count = [0]

    def append_until_killed(path: Path, *args: Any) -> None:
        append(path, *args)
        if len(tables.read(path)) == 7:
            raise KeyboardInterrupt

    def counted(*args: Any) -> passes.Outcome:
        count[0] += 1
        return run(*args)

    monkeypatch.setattr(cell, "run", counted)
    monkeypatch.setattr(tables, "append", append_until_killed)
    whole, page = tmp_path / "whole", tmp_path / "docs" / "evidence" / "paper.md"
    assert benchmark.main([*words, f"output={whole}"]) == 130
    assert len(results(whole)) == count[0] == 7
    monkeypatch.setattr(tables, "append", append)
    assert benchmark.main([*words, f"output={whole}", f"page={page}"]) == 0
    out = capsys.readouterr().out
    assert "Balanced classes, β:" in out
    assert "| `control` |" in out
    rows = results(whole)
    assert len(rows) == count[0] == 2 * (5 + 3 + 3)
    assert tuple(rows[0]) == RUNS["results"].columns
    assert all(0 <= found["tv"] <= 1 and 0 <= found["auroc"] <= 100 for found in rows)
    pictures = {"bias.png", "accuracy.png", "mirror.png", "batch.png"}
    assert {path.name for path in whole.iterdir()} >= {"summary.json", "config.yaml", *pictures}
    assert {path.name for path in page.with_suffix("").iterdir()} == {"results.csv", *pictures}
    assert "| `control` |" in page.read_text()
    assert json.loads((whole / "summary.json").read_text())["runs"] == len(rows)
    before = count[0]
    assert benchmark.main([str(whole / "config.yaml")]) == 0
    assert count[0] == before, "nothing was left to run"

    others = tmp_path / "others"
    assert benchmark.main([*words, f"output={others}", "processes=2"]) == 0
    assert results(others) == rows


def test_balanced_streams_are_balanced(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = passes.run
    seen = []
    monkeypatch.setattr(
        cell, "run", lambda batches, *args: seen.append(batches.truth) or run(batches, *args)
    )
    assert (
        benchmark.main(
            [
                *words,
                f"output={tmp_path / 'out'}",
                "methods=[norm]",
                "parts=[]",
                "images=200",
            ]
        )
        == 0
    )
    shares = [labels.bincount(minlength=4) / len(labels) for labels in seen]
    assert any(torch.allclose(share, torch.full((4,), 0.25)) for share in shares)
    assert any(float(share[0]) == pytest.approx(0.85) for share in shares)


def test_what_fails_is_recorded(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    broken = [
        "variants.broken.kind=dsbr",
        "variants.broken.target_prior=[1.0]",
        "methods=[broken,norm]",
        "parts=[]",
    ]
    assert (
        benchmark.main([*words, *broken, f"output={tmp_path / 'out'}", "streams=[balanced]"]) == 1
    )
    assert "failures" in capsys.readouterr().out
    errors = tables.read(tmp_path / "out" / "errors.csv")
    assert {found["method"] for found in errors} == {"broken"}
    assert "target_prior" in errors[0]["error"]


def test_the_page_is_what_the_rows_say() -> None:
    config = entry.configured(BenchmarkConfig, {}, [str(CONFIG)])
    rows = tables.read(ROOT / "docs" / "evidence" / "paper" / "results.csv")
    assert markdown(rows, config) in (ROOT / "docs" / "evidence" / "paper.md").read_text()
