"""The studies behind results.md and measured.md in docs/evidence: their figures are adapt.py's,
they go on where they stopped, and their pages are what the rows say.
"""

from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks import measured, methods, tables
from holdfast.benchmarks.config import BenchmarkConfig
from holdfast.benchmarks.pages import write_page
from holdfast.benchmarks.passes import Batches, assembled, run
from holdfast.benchmarks.plan import create_plan
from holdfast.benchmarks.runner import _with_metric
from holdfast.benchmarks.sources import SourceModel
from holdfast.benchmarks.tables import RUN_KEYS, RUNS, Row
from holdfast.programs import benchmark
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from tests.conftest import MASKS, QUICK, ROOT, TINY
from tests.methods.test_golden_pixels import OF_PIXELS
from tests.test_programs import run_adapt

BENCHMARKS = ROOT / "configs" / "benchmark"


def row(target: str, method: str, score: float, **values: Any) -> Row:
    """A run of a thousand images in ten seconds."""
    stream = {
        **{"data": "nuclei", "target": target, "network": "compact", "shift": "none"},
        **{"severity": 0, "stream": "iid", "batch_size": 64, "images": 1000, "seed": 0},
    }
    how = {"method": method, "optimizer": "adam", "lr": 0.001, "policy": "off"}
    scores = {"balanced_accuracy": score, "balanced_accuracy_last": score, "largest_last": 40.0}
    scores["metric"] = "balanced_accuracy"
    return {**stream, **how, **scores, "resets": 0, "seconds": 10.0, **values}


@pytest.mark.parametrize("method", ["tent", "lame"])
def test_a_figure_is_what_adapt_says_unguarded(source: Path, tmp_path: Path, method: str) -> None:
    words = [*TINY, "stream=prevalence", "seed=1", f"method={method}", "guard=off"]
    # Where images are alike, LAME's neighbours are a matter of rounding: both on the CPU, where the
    # benchmark runs.
    expected = run_adapt(source, tmp_path, *words, "trainer.accelerator=cpu")
    words = [f"source={source}", *words, *QUICK]
    batches = Batches(assembled(words).loader)
    found = (run(batches, words).predictions == batches.truth).float()
    assert len(found) == 500
    assert 100 * float(found.mean()) == pytest.approx(expected["accuracy"], abs=0.006)


@pytest.mark.slow
@pytest.mark.gate
def test_a_study_goes_on_and_keeps_what_a_person_wrote(source: Path, tmp_path: Path) -> None:
    (tmp_path / "phantom0").symlink_to(source, target_is_directory=True)
    page, out = tmp_path / "docs" / "evidence" / "results.md", tmp_path / "out"
    words = [
        *("study=methods", "policies=[off]", "rates=[1]", "shifts=[none]", "processes=1"),
        *(f"sources={tmp_path}", f"output={out}", f"page={page}", "images=128"),
        "parts=[{methods: [norm, t3a]}, {methods: [memo], images: 32}]",
    ]
    assert benchmark.main(words) == 0
    rows = tables.read(out / "results.csv")
    assert sorted((row["stream"], row["method"], row["images"]) for row in rows) == sorted(
        (stream, *run)
        for stream in ("iid", "prevalence")
        for run in (("norm", 128), ("t3a", 128), ("memo", 32))
    )
    page.write_text(page.read_text() + "\nWhat a person wrote.\n")
    assert benchmark.main([*words[:-1], "methods=[norm,t3a,source]"]) == 0
    again = tables.read(out / "results.csv")
    new = [row for row in again if row not in rows]
    assert [row for row in again if row in rows] == rows, "a finished run is not run again"
    assert [row["method"] for row in new] == ["source"] * 2
    text = page.read_text()
    assert all(words in text for words in ("`source`", "`memo` (of 32)"))
    assert text.endswith("What a person wrote.\n")
    assert (page.with_suffix("") / "results.csv").read_bytes() == (out / "results.csv").read_bytes()


def test_tables_of_methods_show_mean_and_deviation_and_what_is_missing() -> None:
    rows = [row("fluor_360", "norm", 70.0)]
    rows += [row("other", "tent", 80.0 + 2 * seed, seed=seed) for seed in (0, 1)]
    text = methods.markdown(rows)
    assert "| method | nuclei fluor_360 | nuclei other | mean | images/s |" in text
    assert "| `norm` | 70.0 | – | – | 100 |" in text
    assert "| `tent` | – | 81.0 ± 1.4 | – | 100 |" in text


def test_measured_lines_have_ranges_and_resets() -> None:
    alone = [row("other", "tent", 80.0 + seed, seed=seed) for seed in (0, 1)]
    guarded = [{**run, "policy": "on", "resets": run["seed"]} for run in alone]
    control = row("other", "norm", 75.0, optimizer=None, lr=None)
    lines = measured.markdown([*alone, control, *guarded]).splitlines()
    assert len(lines) == 5
    scores = "80.5 (80.0–81.0) | 80.5 (80.0–81.0) | 40.0 (40.0–40.0)"
    place = "nuclei other, iid, 1000 images"
    assert lines[2] == f"| {place} | tent, adam 0.001, off | {scores} | 0, 0 |"
    assert f"| {place} | tent, adam 0.001, on | {scores} | 0, 1 |" in lines
    assert lines[3].startswith(f"| {place} | control | 75.0 (75.0–75.0) |")


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("balanced_accuracy", "balanced accuracy"),
        ("dice", "mean Dice"),
        ("auroc", "macro AUROC"),
        ("kappa", "kappa"),
        (None, "score"),
    ],
)
def test_scores_are_called_what_they_are(metric: str | None, title: str) -> None:
    rows = [row("other", "tent", 80.0, largest_last=None, metric=metric)]
    head, _, line = measured.markdown(rows).splitlines()
    assert head.startswith(f"| stream | run | {title} | last quarter |")
    assert line.endswith("| 80.0 (80.0–80.0) | 80.0 (80.0–80.0) | – | 0 |")
    labels = row("here", "tent", 70.0)
    tables_ = measured.markdown([*rows, labels]).count("| stream | run |")
    assert tables_ == (1 if metric == "balanced_accuracy" else 2)


def test_masks_are_measured_by_dice_and_tables_of_earlier_versions_get_the_column(
    mask_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "phantom0").symlink_to(mask_source, target_is_directory=True)
    words = [
        *("study=measured", "methods=[source]", "policies=[off]", "rates=[1]", "streams=[iid]"),
        *(f"data.words={MASKS}", "data.targets=[phantom/scanner_b]"),
        *("shifts=[none]", "batch_sizes=[8]", "processes=1", f"sources={tmp_path}"),
        f"output={tmp_path / 'out'}",
    ]
    assert benchmark.main([*words, "images=8"]) == 0
    assert "| stream | run | mean Dice | last quarter |" in capsys.readouterr().out
    results = tmp_path / "out" / "results.csv"
    (found,) = tables.read(results)
    assert found["metric"] == "dice"
    assert 0 <= found["balanced_accuracy"] <= 100
    tables.write(results, RUNS["results"].columns[:-1], [found])
    assert benchmark.main([*words, "images=8", "methods=[source,norm]"]) == 0
    assert {row["method"]: row["metric"] for row in tables.read(results)} == {
        "source": "dice",
        "norm": "dice",
    }
    assert capsys.readouterr().out.count("| stream | run |") == 1


def test_no_model_is_loaded_where_all_rows_say_what_they_are_scored_by(tmp_path: Path) -> None:
    rows = [{"data": "phantom", "metric": "dice"}]
    assert _with_metric(rows, [SourceModel("phantom", "compact", 0, tmp_path / "none")]) == rows


def test_where_methods_also_run_alone_those_that_learn_nothing_run_so_only(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "phantom0").symlink_to(source, target_is_directory=True)
    words = [
        *("study=measured", "methods=[norm,tent]", "rates=[adam 0.01]", "policies=[off,on]"),
        *("streams=[iid]", "shifts=[none]", "images=64", f"sources={tmp_path}", "processes=1"),
    ]
    assert benchmark.main([*words, f"output={tmp_path / 'out'}"]) == 0
    rows = tables.read(tmp_path / "out" / "results.csv")
    assert [(row["method"], row["lr"], row["policy"]) for row in rows] == [
        ("norm", None, "off"),
        ("tent", 0.01, "off"),
        ("tent", 0.01, "on"),
    ]
    assert all(0 <= row["largest_last"] <= 100 for row in rows)


def test_a_page_without_its_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n")
    with pytest.raises(InputError, match="lacks the lines"):
        write_page(page, "text", "benchmark.py study=methods")
    assert page.read_text() == "# Results\n"


def test_the_page_of_methods_is_what_the_runs_say() -> None:
    rows = tables.read(ROOT / "docs" / "evidence" / "results" / "results.csv")
    assert methods.markdown(rows) in (ROOT / "docs" / "evidence" / "results.md").read_text()


def test_the_shipped_plan_of_methods_has_every_method_on_each_stream() -> None:
    of_labels = set(METHODS) - OF_PIXELS
    config = entry.configured(BenchmarkConfig, {}, [str(BENCHMARKS / "methods.yaml")])
    parts = [config.of_part(part) for part in config.parts]
    assert {method for part in parts for method in part.methods} == of_labels
    rows = tables.read(ROOT / "docs" / "evidence" / "results" / "results.csv")
    assert len({tables.key_of(row, RUN_KEYS) for row in rows}) == len(rows)
    assert len(rows) == 7 * len(config.streams) * len(config.seeds) * len(of_labels)


def test_the_measured_plan_runs_without_files() -> None:
    words = [str(BENCHMARKS / "measured.yaml"), "data.targets=[phantom/scanner_b]"]
    plan = create_plan(entry.configured(BenchmarkConfig, {}, words))
    assert {stream.images for stream, _ in plan} == {6400}
    assert {stream.setting.stream for stream, _ in plan} == {"iid", "prevalence"}
