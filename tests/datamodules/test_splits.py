"""Patients in two splits, whatever the column is called that names them."""

from pathlib import Path

import numpy as np
import pytest

from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.records import text
from holdfast.datamodules.splits import likely_groups
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_picture

SHARES = [0.5, 0.25, 0.25]


def clinic(folder: Path, column: str, split: bool = False, each: int = 3) -> str:
    """A table of 24 images, some of each patient in the column."""
    lines = [f"path,label,{column}" + (",split" if split else "")]
    for number in range(24):
        write_picture(folder / f"{number}.png", grey())
        cells = [f"{number}.png", ("ill", "well")[number % 2], f"p{number // each}"]
        lines.append(",".join([*cells, *(["train" if number % 2 else "test"] if split else [])]))
    (folder / "clinic.csv").write_text("\n".join(lines))
    return str(folder / "clinic.csv")


@pytest.mark.parametrize("column", ["patient_id", "PatientID", "Subject", "case", "slide name"])
def test_likely_columns_are_found(tmp_path: Path, column: str) -> None:
    path = clinic(tmp_path, column)
    with pytest.raises(InputError, match=rf"look like patients.*data\.group={column}.*=null"):
        load_table(TableConfig(path=path, shares=SHARES), "train")
    parts = [
        load_table(TableConfig(path=path, shares=SHARES, group=column), split)
        for split in ("train", "val", "test")
    ]
    patients = [set(part.groups.tolist()) for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 8
    alone = load_table(TableConfig(path=path, shares=SHARES, group=None), "train")
    assert alone.groups.tolist() == alone.ids.tolist()


def test_a_split_column_is_held_to_the_same(tmp_path: Path) -> None:
    path = clinic(tmp_path, "patient", split=True)
    for split in ("train", "test", "target"):
        with pytest.raises(InputError, match="8 of 8 would be in several splits, as p0 in train"):
            load_table(TableConfig(path=path), split)  # type: ignore[arg-type]
        assert len(load_table(TableConfig(path=path, group=None), split)) == 12  # type: ignore[arg-type]
        with pytest.raises(InputError, match="8 group"):
            load_table(TableConfig(path=path, group="patient"), split)  # type: ignore[arg-type]


def test_what_is_no_finding(tmp_path: Path) -> None:
    one = clinic(tmp_path / "one", "patient", each=1)
    assert len(load_table(TableConfig(path=one, shares=SHARES), "train")) == 12
    several = clinic(tmp_path / "several", "patient")
    assert len(load_table(TableConfig(path=several), "target")) == 24  # nothing is trained on
    with pytest.raises(InputError, match=r"no column 'patent' .*did you mean patient"):
        load_table(TableConfig(path=several, group="patent"), "target")
    columns = {name: text(["a"]) for name in ("Study", "patient_age", "patient", "site")}
    assert list(likely_groups(columns)) == ["patient"]  # a study is asked only where no patient is
    assert list(likely_groups({"Study": text(["a"]), "site": text(["b"])})) == ["Study"]


def test_folders_of_patients_below_classes(tmp_path: Path) -> None:
    for label in ("ill", "well"):
        for number in range(12):
            write_picture(
                tmp_path / "many" / label / f"{label}{number // 4}" / f"{number}.png", grey()
            )
            write_picture(tmp_path / "one" / label / f"{label}{number}" / "0.png", grey())
            write_picture(tmp_path / "plain" / label / "images" / f"{number}.png", grey())
    with pytest.raises(InputError, match=r"folders below its classes look.*data\.group=folder"):
        load_folder(FolderConfig(root=str(tmp_path / "many"), shares=SHARES), "train")
    config = FolderConfig(root=str(tmp_path / "many"), shares=SHARES, group="folder")
    patients = [set(load_folder(config, s).groups.tolist()) for s in ("train", "val", "test")]  # type: ignore[arg-type]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 6
    for name in ("one", "plain"):
        assert load_folder(FolderConfig(root=str(tmp_path / name), shares=SHARES), "train")


def test_patients_of_an_array(tmp_path: Path) -> None:
    path, count = tmp_path / "set.npz", np.arange(12)
    arrays = {"images": np.zeros((12, 8, 8), np.uint8), "labels": count % 2}
    split = np.array(["train", "val", "test"] * 4)
    np.savez(path, **arrays, split=split, Subject_ID=count // 3, id=count // 3)
    with pytest.raises(InputError, match=r"4 of 4 would be.*data\.group=Subject_ID"):
        load_npz(NpzConfig(path=str(path)), "train")
    images = load_npz(NpzConfig(path=str(path), group=None), "train")
    assert images.groups.tolist() == images.ids.tolist() == ["0", "1", "2", "3"]
    np.savez(path, **arrays, split=np.array(["train"] * 6 + ["test"] * 6), patient=count // 3)
    assert set(load_npz(NpzConfig(path=str(path), group="patient"), "test").groups) == {"2", "3"}
