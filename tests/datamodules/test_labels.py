"""Labels as people write them: numbers with gaps, words for nothing, and two sites' words for one
thing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.datamodules.classes import in_classes_of
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.labels import read_labels
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.records import text
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_picture


def read(*labels: str, **options: Any) -> tuple[tuple[str, ...], list[int]]:
    found = read_labels(text(labels), "site.csv", **options)
    return found.names, found.codes.tolist()


def named(*names: str, labels: list[int]) -> ImageSet:
    count = len(labels)
    column = text(map(str, range(count)))
    pixels = np.zeros((count, 4, 4), np.uint8)
    return ImageSet(pixels, LabelTarget(np.array(labels), names), column, column, column)


def test_numbers_are_names_in_the_order_of_their_values() -> None:
    assert read(*map(str, range(1, 13)))[0] == tuple(map(str, range(1, 13)))
    assert read("8720", "1041") == (("1041", "8720"), [1, 0])
    assert read("2", "0", "1") == (("0", "1", "2"), [2, 0, 1])
    assert read("10", "9", "0.5") == (("0.5", "9", "10"), [2, 1, 0])
    assert read("1.0", "2", "") == (("1", "2"), [0, 1, UNLABELLED])  # a gap makes 1 a float
    assert read("01", "10") == (("01", "10"), [0, 1])
    assert read("1", "other", "10")[0] == ("1", "10", "other")
    assert read(" ill", "ill ", "well") == (("ill", "well"), [0, 0, 1])
    exact = ("9007199254740993", "9007199254740992")  # as floats they are one number
    assert read(*exact)[0] == exact[::-1]


@pytest.mark.parametrize("pair", [("01", "1"), ("Ill", "ill"), ("1.5", "1.50")])
def test_what_is_one_class_to_a_reader_is_not_taken_for_two(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=f"{pair[0]}.*{pair[1]}.*write them alike"):
        read(*pair)


def test_words_for_no_label() -> None:
    words = ("-1", "-1.0", "nan", "NaN", "NA", "N/A", "null", "None", "")
    assert read("ill", *words) == (("ill",), [0] + [UNLABELLED] * len(words))
    assert read("2", "-1.0", "999", missing=["999"]) == (("2",), [0, -1, -1])
    assert read("-1", "1", "", missing=[]) == (("-1", "1"), [0, 1, UNLABELLED])
    assert read("none", "mild")[0] == ("mild", "none")  # a grade
    assert read("None", "-1", class_names=("None", "Some")) == (("None", "Some"), [0, -1])
    assert read_labels(text(["a", "NA", "NA"]), "x").missing == ("NA",)


def pictures(folder: Path, rows: list[str]) -> Path:
    for number, row in enumerate(rows):
        write_picture(folder / row.split(",")[0], np.full((8, 8), number, np.uint8))
    return folder


def test_a_table_counts_what_is_missing_and_leaves_other_domains_classes_out(
    tmp_path: Path,
) -> None:
    labels = ["3", "nan", "1", "3", "-1", "7"]
    splits = ["train", "train", "train", "val", "test", "test"]
    domains = ["a", "a", "a", "a", "a", "b"]
    rows = [f"{n}.png,{labels[n]},{splits[n]},{domains[n]}" for n in range(6)]
    table = pictures(tmp_path, rows) / "t.csv"
    table.write_text("\n".join(["path,label,split,domain", *rows]))
    train, test, target = (
        load_table(TableConfig(path=str(table), source="a", target="b"), split)
        for split in ("train", "test", "target")
    )
    assert train.class_names == test.class_names == ("1", "3")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, -1, 0], [-1])
    assert train.notes == ("labels taken for missing: 1 x -1, 1 x nan (data.missing)",)
    assert target.notes == ()
    assert in_classes_of(target, ("1", "7")).labels.tolist() == [1]


def test_folders_called_1_to_12(tmp_path: Path) -> None:
    for number in range(1, 13):
        write_picture(tmp_path / str(number) / "0.png", grey())
    images = load_folder(FolderConfig(root=str(tmp_path)), "target")
    assert images.class_names == tuple(map(str, range(1, 13)))
    assert images.target.counts().tolist() == [1] * 12


def test_an_array_without_class_names(tmp_path: Path) -> None:
    pixels, split = np.zeros((6, 8, 8), np.uint8), np.array(["train", "test"] * 3)
    for labels, names, codes in (
        (np.array([10, 2, 2, 10, -1, 2]), ("2", "10"), [1, 0, -1]),
        (np.array([1.0, 2, np.nan, 1, 2, 1]), ("1", "2"), [0, -1, 1]),
        (np.array(["b", "a", "a", "b", "a", "b"]), ("a", "b"), [1, 0, 0]),
    ):
        np.savez(tmp_path / "set.npz", images=pixels, labels=labels, split=split)
        images = load_npz(NpzConfig(path=str(tmp_path / "set.npz")), "train")
        assert (images.class_names, images.labels.tolist()) == (names, codes)


def test_numbers_are_never_matched_to_names() -> None:
    numbers, words = named("0", "1", labels=[0, 1, 1]), named("well", "ill", labels=[0, 1, 1])
    remedy = r"data\.classes=\{0: malignant, 1: normal\}', or in whichever order"
    with pytest.raises(InputError, match=rf"0 \(1 images\), 1 \(2 images\).*{remedy}"):
        in_classes_of(numbers, ("malignant", "normal"))
    with pytest.raises(InputError, match=r"data\.classes=\{well: 0, ill: 1\}"):
        in_classes_of(words, ("0", "1"))
    mapped = in_classes_of(numbers, ("malignant", "normal"), {"0": "normal", "1": "malignant"})
    assert mapped.labels.tolist() == [1, 0, 0]
    with pytest.raises(InputError, match=r"data\.classes=\{0: \"a: b\", …\}"):
        in_classes_of(numbers, ("a: b",))


def test_numbers_are_matched_by_their_value() -> None:
    assert in_classes_of(named("1", "3", labels=[0, 1]), ("01", "02", "03")).labels.tolist() == [
        0,
        2,
    ]
    # A class that the target names and never shows is in nobody's way, nor is a map without labels.
    assert in_classes_of(named("a", "b", labels=[0]), ("a",)).labels.tolist() == [0]
    assert in_classes_of(named(labels=[-1]), ("a",), {"b": "a"}).labels.tolist() == [-1]


def test_the_remedy_can_be_typed() -> None:
    words = ["source=x", "data=table", "data.classes={0: normal, 1.0: 1, other: null}"]
    config = resolve(AdaptConfig, GROUPS, read_arguments(words, GROUPS))
    assert config.data.options.classes == {"0": "normal", "1.0": "1", "other": None}
    with pytest.raises(InputError, match="theirs: ours"):
        resolve(AdaptConfig, GROUPS, read_arguments([*words[:2], "data.classes=[a]"], GROUPS))
