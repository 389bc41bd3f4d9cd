"""CSV files that grow, are cut off, and are put together."""

from pathlib import Path

from holdfast.benchmarks.tables import append, key_of, latest, read


def test_rows_come_back_with_their_types(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    append(path, ("name", "lr", "count", "empty"), [{"name": "a,b", "lr": 0.001, "count": 3}])
    append(
        path,
        ("name", "lr", "count", "empty"),
        [{"name": "c", "lr": 1e-05, "count": -1, "empty": None}],
    )
    assert read(path) == [
        {"name": "a,b", "lr": 0.001, "count": 3, "empty": None},
        {"name": "c", "lr": 1e-05, "count": -1, "empty": None},
    ]
    assert read(tmp_path / "absent.csv") == []


def test_a_name_is_a_name_though_it_looks_like_a_number(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [
        {"data": "d", "target": target, "seed": 1} for target in ("01", "1", "2019_1", "nan", None)
    ]
    append(path, ("data", "target", "seed"), rows)
    assert [key_of(row, ("target", "seed")) for row in read(path)] == [
        key_of(row, ("target", "seed")) for row in rows
    ]
    assert read(path)[-1]["target"] is None


def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    append(path, ("a", "b"), [{"a": 1, "b": 2}])
    path.write_text(path.read_text() + "3,")
    assert read(path) == [{"a": 1, "b": 2}]
    append(path, ("a", "b"), [{"a": 5, "b": 6}])
    assert [row["a"] for row in read(path)] == [1, 5]


def test_the_last_row_of_a_name_counts() -> None:
    rows = [{"a": 1, "b": 0.001}, {"a": 2, "b": 1}, {"a": 1, "b": 0.0010}]
    assert latest(rows, ("a",)) == [rows[2], rows[1]]
    assert key_of(rows[0], ("b", "a")) == ("0.001", "1")
