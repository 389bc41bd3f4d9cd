"""A file of labels: read as it grows, and a mistake in it costs no other label."""

import os
from pathlib import Path

import pytest

from holdfast.datamodules.labelfile import LabelFile
from holdfast.tta.errors import InputError

NAMES = ("benign", "malignant")


def old(path: Path) -> None:
    """The file has rested for two minutes."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 120 * 10**9))


def test_a_growing_file_is_read_anew_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label")
    file = LabelFile(path, NAMES)
    assert file.changed()
    assert file.checked() == {}
    assert not file.changed()
    path.write_text("id,label\na,benign\nb,mali")
    assert file.changed()
    assert file.read().labels == {"a": 0}
    path.write_text("id,label\na,benign\nb,malignant")
    assert file.read() == ({"a": 0}, ())
    assert not file.changed()
    old(path)
    assert file.changed()
    assert file.read().labels == {"a": 0, "b": 1}
    path.unlink()
    assert not file.changed()


@pytest.mark.parametrize(
    "half", ['"scan 2\n', '"scan 2', '"scan\n2",mali', '"scan\n2","malignant\n', "é".encode()[:1]]
)
def test_a_file_that_is_cut_while_it_is_written_waits_for_the_rest(
    half: str | bytes, tmp_path: Path
) -> None:
    path, start = tmp_path / "labels.csv", b'id,label\n"a",benign\n'
    path.write_bytes(start + (half if isinstance(half, bytes) else half.encode()))
    assert LabelFile(path, NAMES).checked() == {"a": 0}
    path.write_bytes(start + 'é,benign\n"scan\n2","malignant"\n'.encode())
    assert LabelFile(path, NAMES).checked() == {"a": 0, "é": 0, "scan\n2": 1}


@pytest.mark.parametrize("half", [b'"scan 2\n', "é".encode()[:1]])
def test_a_file_that_stays_cut_is_refused(half: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"id,label\na,benign\n" + half)
    old(path)
    with pytest.raises(InputError, match=r"labels\.csv cannot be read"):
        LabelFile(path, NAMES).checked()


def test_without_growth_the_last_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\nb,malignant")
    assert LabelFile(path, NAMES, growing=False).checked() == {"a": 0, "b": 1}


def test_missing_labels_spreadsheets_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffID;Label;who\n'=x;malignant;me\nb;;me\nc;benign;me\n" + "d;NA;me\n")
    with path.open("a") as file:
        file.write("b;malignant ;me\nc;malignant;me\n")
    assert list(LabelFile(path, NAMES).checked().items()) == [("=x", 1), ("b", 1), ("c", 1)]


def test_numbers_are_names_and_a_site_has_its_own_words(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,1.0\nb,0\n")
    assert LabelFile(path, ("1", "2", "0")).checked() == {"a": 0, "b": 2}
    with pytest.raises(InputError, match=r"data\.classes=\{1\.0: benign\}"):
        LabelFile(path, NAMES).checked()
    site = {"1": "malignant", "0": None}
    assert LabelFile(path, NAMES, called=site).checked() == {"a": 1}


def test_a_column_that_is_called_twice_is_not_chosen_by_chance(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label,Label\na,benign,malignant\n")
    assert LabelFile(path, NAMES).checked() == {"a": 0}
    path.write_text("id,LABEL,Label\na,benign,malignant\n")
    with pytest.raises(InputError, match="the columns LABEL and Label: call the one that counts"):
        LabelFile(path, NAMES).checked()


def test_a_label_that_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,benign\nb,malignent\nc,malignant\nd,7\n")
    file = LabelFile(path, NAMES)
    labels, refused = file.read()
    assert labels == {"a": 0, "c": 1}
    assert len(refused) == 2
    assert all(str(path) in sentence for sentence in refused)
    with pytest.raises(InputError, match=r"label 7|malignent"):
        file.checked()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name,label\na,benign\n", "no column id"),
        (b"id,class\na,benign\n", "no column label"),
        (b"", "no column id"),
        (b"id,label\na,benign,3\n", "3 values"),
        (b"id,label\n\xe9,benign\n", "UTF-8"),
    ],
)
def test_what_is_no_file_of_labels_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        LabelFile(path, NAMES).checked()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels=FILE\.csv"):
        LabelFile(tmp_path / "none.csv", NAMES).checked()
