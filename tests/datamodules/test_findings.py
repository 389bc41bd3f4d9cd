"""Findings of tables: columns, lists, and what stands for unknown."""

from pathlib import Path

import numpy as np
import pytest

from holdfast.datamodules.findings import from_columns, from_lists
from holdfast.datamodules.records import text
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_picture


def test_columns_say_present_absent_uncertain_or_nothing() -> None:
    column = text(["1", "0", "1.0", "yes", "No", "-1", "", "nan"])
    found = from_columns([column], ["Mass"], "t.csv")
    expected = [1, 0, 1, 1, 0, np.nan, np.nan, np.nan]
    assert np.array_equal(found.values[:, 0], expected, equal_nan=True)
    assert found.notes == ("1 uncertain findings: data.uncertain=ignore",)
    found = from_columns([column], ["Mass"], "t.csv", "ones", "zeros")
    assert found.values[:, 0].tolist() == [1, 0, 1, 1, 0, 1, 0, 0]
    with pytest.raises(InputError, match="column Mass holds '3'"):
        from_columns([text(["3"])], ["Mass"], "t.csv")


def test_lists_name_what_is_present_and_no_finding_is_no_class() -> None:
    column = text(["Effusion|Mass", "No Finding", "", "Mass ; Nodule", "Effusion|"])
    found = from_lists(column, "t.csv")
    assert found.names == ("Effusion", "Mass", "Nodule")
    none = [np.nan] * 3
    expected = [[1, 1, 0], [0, 0, 0], none, [0, 1, 1], [1, 0, 0]]
    assert np.array_equal(found.values, expected, equal_nan=True)
    assert from_lists(column, "t.csv", ["Mass"]).values[:, 0].tolist()[:2] == [1, 0]
    with pytest.raises(InputError, match=r"names 'Edema', which t\.csv has nowhere"):
        from_lists(column, "t.csv", ["Edema"])
    with pytest.raises(InputError, match="'Mass' and 'mass', which differ in case only"):
        from_lists(text(["Mass", "mass|Nodule"]), "t.csv")
    with pytest.raises(InputError, match="'Mass' and 'mass', which differ in case only"):
        from_lists(text(["Mass", "mass"]), "t.csv", ["Mass"])
    assert from_lists(text(["Mass", "Edema", "edema"]), "t.csv", ["Mass"]).names == ("Mass",)
    with pytest.raises(InputError, match="finding 'Mass,Edema', and its parts as well: separate"):
        from_lists(text(["Mass,Edema", "Mass", "Edema"]), "t.csv")
    assert len(from_lists(text(["Mass, left", "Mass"]), "t.csv").names) == 2
    with pytest.raises(InputError, match="names no finding"):
        from_lists(text(["normal"]), "t.csv")


@pytest.mark.parametrize(
    ("header", "rows", "names", "message"),
    [
        ("path,Mass", ["0.png,1", "0.png,0"], ["Mass"], "as Mass present and as Mass absent"),
        ("path,Mass", ["0.png,1", "./0.png,"], ["Mass"], "as Mass present and as Mass unknown"),
        ("path,label", ["0.png,Mass", "0.png,Edema"], None, "Edema absent and as Edema present"),
    ],
)
def test_rows_of_an_image_that_contradict_each_other_are_refused(
    tmp_path: Path, header: str, rows: list[str], names: list[str] | None, message: str
) -> None:
    for number in range(2):
        write_picture(tmp_path / f"{number}.png", grey())
    table = tmp_path / "t.csv"
    config = TableConfig(path=str(table), findings=names, task="multilabel")
    table.write_text("\n".join([header, *rows, "1.png,"]))
    with pytest.raises(InputError, match=rf"{message}: keep one row an image, with all of its"):
        load_table(config, "target")
    table.write_text("\n".join([header, rows[0], rows[0], "1.png,"]))
    images = load_table(config, "target")
    assert len(images) == 3
    assert "1 row(s) list an image again, which then counts as often" in images.notes


def test_a_table_of_findings(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / f"{number}.png", grey())
    columns = tmp_path / "columns.csv"
    columns.write_text(
        "path,split,Mass,Effusion,age\n0.png,train,1,0,40\n1.png,train,0,-1,50\n"
        "2.png,val,0,1,60\n3.png,,,1,70\n"
    )
    config = TableConfig(path=str(columns), findings=["Effusion", "Mass"], uncertain="ones")
    train = load_table(config, "train")
    assert (train.task, train.class_names) == ("multilabel", ("Effusion", "Mass"))
    assert train[1]["findings"].tolist() == [1, 0]
    assert list(train.metadata) == ["age"]
    target = load_table(config, "target")
    assert target[0]["findings"].isnan().tolist() == [False, True]
    with pytest.raises(InputError, match=r"has no column 'Edema' \(data\.findings\)"):
        load_table(TableConfig(path=str(columns), findings=["Mass", "Edema"]), "target")
    with pytest.raises(InputError, match=r"data\.findings names Mass twice"):
        TableConfig(path=str(columns), findings=["Mass", "Mass"])
    with pytest.raises(InputError, match="and no column label with lists"):
        load_table(TableConfig(path=str(columns), findings=["Edema"]), "target")
    lists = tmp_path / "lists.csv"
    lists.write_text("path,label\n0.png,Mass|Effusion\n1.png,No Finding\n2.png,Mass\n3.png,\n")
    images = load_table(TableConfig(path=str(lists), task="multilabel"), "target")
    assert images.target.known.tolist() == [True, True, True, False]
    assert images.target.counts().tolist() == [1, 2]
    plain = load_table(TableConfig(path=str(lists)), "target")  # four classes by name
    assert plain.task == "single"
    lists.write_text("path\n0.png\n")
    unknown = load_table(TableConfig(path=str(lists), task="multilabel"), "target")
    assert unknown.task == "multilabel"
    assert not unknown.labelled
