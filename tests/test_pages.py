"""The pages of shifts, streams and the guard are what the code says, and the benchmarks that draw
them run.
"""

import csv
import re
from pathlib import Path

import pytest

from docs._site import flow, structure
from holdfast.benchmarks import shifts
from holdfast.callbacks import preflight
from holdfast.callbacks.corrections import CORRECTIONS
from holdfast.callbacks.guard.modes import TRANSITIONS
from holdfast.callbacks.records import TRACE_COLUMNS
from holdfast.datamodules import STREAMS
from holdfast.datamodules.shifts import CORRUPTIONS, FAMILIES
from holdfast.datamodules.shifts.table import families_table, shifts_table
from holdfast.tta import acceptance
from holdfast.tta.csvfile import LINK
from holdfast.tta.errors import InputError
from tests.conftest import ROOT


def test_the_page_of_shifts_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "shifts.md").read_text()
    assert shifts_table() in page
    assert families_table() in page
    for name in CORRUPTIONS:
        assert page.count(f"| `{name}` |") == 2  # what it does, and what it costs


def test_the_page_of_streams_has_each_with_its_picture() -> None:
    page = (ROOT / "docs" / "reference" / "streams.md").read_text()
    for name in STREAMS:
        assert f"| `{name}`: " in page
    for picture in re.findall(r"\(streams/(\w+\.png)\)", page):
        assert (ROOT / "docs" / "reference" / "streams" / picture).is_file()


def test_shifts_are_scored_and_drawn(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"source={source}", f"output={tmp_path}", "images=60", "shifts=[stain,ct]"]
    assert shifts.main(words) == 0
    with (tmp_path / "shifts.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["shift"] for row in table] == ["stain", *FAMILIES["ct"]]
    assert len({row["severity 0"] for row in table}) == 1
    assert float(table[0]["severity 0"]) > float(table[0]["severity 5"])
    assert all(float(row["milliseconds"]) > 0 for row in table)
    first = " | ".join(table[0][f"severity {level}"] for level in (0, 1))
    assert f"| `stain` | {first} |" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml",
        "shifts.csv",
        "severity.png",
    }


def test_a_source_that_was_trained_before_is_used_again(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").symlink_to(source)
    assert shifts.main([f"output={tmp_path}", "images=40", "shifts=gamma"]) == 0
    assert (tmp_path / "shifts.csv").is_file()


def test_bad_words_get_one_sentence(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, message in (
        ("shifts=[nois]", "did you mean noise"),
        ("images=0", "images must be at least 1"),
    ):
        assert shifts.main([f"source={source}", f"output={tmp_path / 'out'}", word]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="does not exist"):
        shifts.configure(["source=absent"])


def test_the_page_of_the_guard_shows_what_leads_from_mode_to_mode() -> None:
    page = (ROOT / "docs" / "explanation" / "guard.md").read_text()
    shown = re.findall(r"^\s*(\w+) --> (\w+): (.+?)\s*$", page, re.MULTILINE)
    table = [
        (mode, after, trigger)
        for mode, row in TRANSITIONS.items()
        for trigger, after in row.items()
    ]
    assert sorted(shown) == sorted(table)


def test_the_reference_has_every_column_event_and_exit_status() -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "callbacks").rglob("*.py"))
    events = set(re.findall(r"\.event\(\s*\"(\w+)\"", code))
    assert events >= {"mode", "verdict", "correction"}
    for name in (*TRACE_COLUMNS, *events, *CORRECTIONS):
        assert f"`{name}`" in page, name
    for status in {0, 1, 2, 74, 130, *preflight.EXIT.values(), *acceptance.EXIT.values()}:
        assert re.search(rf"^\| (?:\d+, )*{status}(?:, \d+)* \|", page, re.MULTILINE), status
    assert f"`{LINK}`" in page


_COUNTS = re.compile(
    r"\b(?:\d+|five|six|seven|eight|nine|ten|eleven|twelve) (?:published )?"
    r"(?:methods|guards|policies|corruptions|shifts|data sets|networks)\b"
)


def test_pages_do_not_count_what_is_registered() -> None:
    # Measurements are about what they say; a count of what the code has goes stale unseen.
    measured = {"guard.md", "paper.md", "results.md", "measured.md"}
    about_others = {"of one to\nfive methods each", "fifteen corruptions at a severity"}
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        if page.name in measured:
            continue
        text = page.read_text()
        for words in about_others:
            text = text.replace(words, "")
        assert _COUNTS.findall(text) == [], page.name


def test_the_readme_has_the_figures_of_the_guards_page() -> None:
    page = (ROOT / "docs" / "explanation" / "guard.md").read_text()
    shown = re.findall(r"^\| .* / .* / .* %.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) == 4
    assert all(row in page for row in shown)


def test_the_picture_of_the_structure_is_up_to_date_and_has_no_circle() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert structure.written(page) == page, "PYTHONPATH=. python -m docs._site.structure"
    after = structure.arrows()
    assert all(part not in structure.reached(part, after) for part in after)


def test_the_version_stands_where_papers_look_for_it() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    named = re.search(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert cited
    assert named
    assert cited[1] == named[1]


def test_diagrams_of_pages_are_drawn_without_a_script() -> None:
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "explanation" / "guard.md"):
        shown = flow.drawn(page.read_text())
        assert "mermaid" not in shown.lower()
        assert "<svg" in shown
    names, edges = flow.parsed(
        'flowchart TD\n  a["one<br>two"] --> b\n  b -->|so| c[three]\n  a --> c'
    )
    assert names == {"a": "one<br>two", "b": "b", "c": "three"}
    assert flow.layers(names, edges) == [["a"], ["b"], ["c"]]
    assert "one two leads to b; b leads to three" in flow.svg(names, edges)
