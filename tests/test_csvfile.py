"""CSV files: what they hold comes back as it was, no spreadsheet runs it, and a full disk leaves
whole rows.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.callbacks.columns import Columns
from holdfast.tta.csvfile import RowFile, csv_lines, quoted, read_rows, unquoted
from holdfast.tta.errors import InputError, WriteError
from holdfast.tta.parquet import check_parquet, to_parquet
from tests.conftest import file_limit

HOSTILE = [
    *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\u00a0=1"),
    *("'", "''=1", "'scan", '=HYPERLINK("http://x","y")', "-", "+", "-2+3+cmd|' /C calc'!A0"),
]
PLAIN = [
    "",
    "scan 7",
    "7",
    "-7",
    "+3.5",
    "-1e-3",
    "-.5",
    "inf",
    "-inf",
    "ünï",
    'a,"b"\nc',
    "a=b",
    "a-b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_all_come_back(text: str) -> None:
    assert quoted(text) == f"'{text}"
    assert unquoted(quoted(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert quoted(text) == unquoted(quoted(text)) == text


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    file = RowFile(path)
    file.write([["id", "value"]])
    file.write([[text, -0.5] for text in (*HOSTILE, *PLAIN)])
    file.close()
    assert [(row["id"], row["value"]) for row in read_rows(path)] == [
        (text, "-0.5") for text in (*HOSTILE, *PLAIN)
    ]
    with path.open(newline="") as plain:  # as others read it, who take off the apostrophe
        ids = [row["id"].removeprefix("'") for row in csv.DictReader(plain)]
    assert ids == [*HOSTILE, *PLAIN]


def test_parquet_holds_text_as_it_is_and_numbers_as_numbers(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "predictions.csv"
    names = ["id", "prediction", "confidence", "prob_a", "reason"]
    rows = [[text, "=a", "0.5", "0.25", ""] for text in (*HOSTILE, *PLAIN)]
    path.write_text(csv_lines([names, *rows, ["lost", "", "", "", "gone"]]), newline="")
    to_parquet(path, tmp_path / "p.parquet")
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["id"] == [*HOSTILE, *PLAIN, "lost"]
    assert table["prediction"][0] == "=a"
    assert table["prob_a"][0] == 0.25
    assert table["prob_a"][-1] is None


def test_columns_of_many_classes() -> None:
    torch = pytest.importorskip("torch")
    few, many = ["a", "b", "c"], [str(i) for i in range(101)]
    p = torch.tensor([[0.2, 0.5, 0.3]])
    assert Columns("auto", few).names == ["prob_a", "prob_b", "prob_c"]
    assert Columns("auto", few).cells(p) == [["0.200000", "0.500000", "0.300000"]]
    assert Columns("none", few).names == Columns("none", few).cells(p)[0] == []
    assert Columns("top5", few).names == ["top1", "prob1", "top2", "prob2", "top3", "prob3"]
    assert Columns("top5", few).cells(p) == [["b", "0.500000", "c", "0.300000", "a", "0.200000"]]
    assert Columns("auto", many).names[-1] == "prob5"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def filled(path: Path) -> tuple[str, int]:
    """Write until no more goes; returns what is said, and the rows that are left."""
    file = RowFile(path)

    def fill() -> None:
        while True:
            file.write([[0, "x" * 90]] * 7)

    with pytest.raises(WriteError) as refused:
        fill()
    file.close()
    lines = path.read_bytes().split(b"\r\n")
    assert lines.pop() == b""  # nothing behind the last whole row
    assert len(lines) == file.rows > 0
    assert file.rows % 7 == 0
    assert all(line.endswith(b"x" * 90) for line in lines)
    return str(refused.value), file.rows


def test_a_full_disk_leaves_whole_rows(small_disk: Path) -> None:
    sentence, rows = filled(small_disk / "table.csv")
    assert sentence == (
        f"{small_disk}/table.csv cannot be written, the disk is full; the {rows} lines before "
        "are whole: make room, or choose another disk, output=DIR"
    )


def test_a_limit_leaves_whole_rows(tmp_path: Path) -> None:
    with file_limit(50_001):
        sentence, _ = filled(tmp_path / "table.csv")
    assert "the file would exceed the size limit" in sentence


def test_a_file_that_is_removed_is_missed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    file = RowFile(folder / "table.csv")
    file.write([["a"]])
    (folder / "table.csv").unlink()
    with pytest.raises(WriteError, match=r"table.csv cannot be written, it was removed meanwhile"):
        file.write([["b"]])
    folder.rmdir()
    with pytest.raises(WriteError, match="out was removed while the run wrote to it"):
        file.write([["b"]])
    with pytest.raises(WriteError, match="was removed"):
        RowFile(folder / "table.csv")


def test_parquet_without_its_package_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r'pip install "holdfast\[parquet\]"'):
        check_parquet()
