"""The comparison of all methods: its figures are adapt.py's, it goes on where it stopped, and its
page is what the CSV says.
"""

from pathlib import Path

import pytest

from holdfast.benchmarks import comparison
from holdfast.benchmarks.comparison import (
    ComparisonConfig,
    Row,
    Target,
    compare,
    measured,
    read_rows,
    stream_batches,
    tables,
    write_page,
)
from holdfast.benchmarks.figures import FiguresConfig
from holdfast.tta.errors import InputError
from tests.conftest import QUICK, ROOT, TINY
from tests.test_programs import run_adapt


@pytest.mark.parametrize("method", ["tent", "lame"])
def test_a_figure_is_what_adapt_says_unguarded(source: Path, tmp_path: Path, method: str) -> None:
    words = [*TINY, "stream=prevalence", "seed=1", f"method={method}", "guard=off"]
    # Where images are alike, LAME's neighbours are a matter of rounding: both on the CPU, where the
    # comparison runs.
    expected = run_adapt(source, tmp_path, *words, "trainer.accelerator=cpu")
    words = [f"source={source}", *words, *QUICK]
    images, score, speed = measured(words, stream_batches(words))
    assert images == 500
    assert score == pytest.approx(expected["balanced_accuracy"], abs=0.006)
    assert speed > 0


def test_a_finished_run_is_not_run_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phantom-seed0").symlink_to(source, target_is_directory=True)
    monkeypatch.setattr(comparison, "_TARGETS", (Target("phantom", "phantom", tuple(TINY)),))
    monkeypatch.setattr(comparison, "_SLOW", "t3a")
    config = ComparisonConfig(
        sources=str(tmp_path),
        output=str(tmp_path / "docs" / "results.csv"),
        page=str(tmp_path / "docs" / "results.md"),
        seeds=[0],
        methods=["norm", "t3a"],
        images=200,
        slow_images=64,
    )
    compare(config)
    rows = read_rows(Path(config.output))
    assert [(row.stream, row.method, row.images) for row in rows] == [
        ("iid", "norm", 192),
        ("iid", "t3a", 64),
        ("85 %", "norm", 192),
        ("85 %", "t3a", 64),
    ]
    page = Path(config.page)
    page.write_text(page.read_text() + "\nWhat a person wrote.\n")
    config.methods = ["norm", "t3a", "source"]
    compare(config)
    assert read_rows(Path(config.output))[:4] == rows
    assert len(read_rows(Path(config.output))) == 6
    assert "`source`" in page.read_text()
    assert page.read_text().endswith("What a person wrote.\n")


def test_tables_show_mean_and_deviation_and_what_is_missing() -> None:
    rows = [
        Row("vessels chase", "iid", seed, "tent", 1024, 80.0 + 2 * seed, 100.0) for seed in (0, 1)
    ]
    rows.append(Row("nuclei fluor_360", "iid", 0, "norm", 1024, 70.0, 300.0))
    text = tables(rows)
    assert "| method | nuclei fluor_360 | vessels chase | mean | images/s |" in text
    assert "| `norm` | 70.0 | – | – | 300 |" in text
    assert "| `tent` | – | 81.0 ± 1.4 | – | 100 |" in text


def test_a_page_without_its_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n")
    with pytest.raises(InputError, match="lacks the lines"):
        write_page(page, "text")
    assert page.read_text() == "# Results\n"


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean tent"):
        ComparisonConfig(methods=["tnet"])
    with pytest.raises(InputError, match="at least 1"):
        ComparisonConfig(processes=0)
    with pytest.raises(InputError, match="set root to the folder of nuclei_patches"):
        FiguresConfig(sets=["nuclei"], root=str(tmp_path))


def test_the_page_is_what_the_runs_say() -> None:
    text = tables(read_rows(ROOT / "docs" / "results.csv"))
    assert text in (ROOT / "docs" / "results.md").read_text()
