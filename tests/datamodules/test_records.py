"""Tables and folders of image files: a site's own data."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.datamodules import load_images
from holdfast.datamodules.classes import in_classes_of
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.records import text
from holdfast.datamodules.settings import FilesConfig
from holdfast.datamodules.splits import cut
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.conftest import ROOT
from tests.datamodules.test_files import grey, write_picture

HEADER = "path,label,split,domain,group,sex"
ROWS = [
    "a/0.png,ill,train,north,p0,F",
    "a/1.png,well,train,north,p0,F",
    "a/2.png,well,val,north,p1,M",
    "a/3.png,ill,test,north,p2,F",
    "b/4.png,ill,test,south,p3,M",
    "b/5.png,,,south,p4,",
]


def table(
    folder: Path, rows: list[str] = ROWS, header: str = HEADER, name: str = "site.csv"
) -> str:
    """A table, and an image for each of its rows, if it lies in the folder."""
    for number, row in enumerate(rows):
        path = row.split(",")[0]
        if path and not path.startswith(("/", "..")):
            write_picture(folder / path, np.full((8, 8), number, np.uint8))
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return str(folder / name)


def test_a_table_says_what_is_what(tmp_path: Path) -> None:
    config = TableConfig(path=table(tmp_path), source="north", target="south")
    train, target = load_table(config, "train"), load_table(config, "target")
    assert train.class_names == target.class_names == ("ill", "well")
    assert train.ids.tolist() == ["a/0.png", "a/1.png"]
    assert train.labels.tolist() == [0, 1]
    assert train.groups.tolist() == ["p0", "p0"]
    assert [len(load_table(config, split)) for split in ("val", "test")] == [1, 1]
    assert target.ids.tolist() == ["b/4.png", "b/5.png"]  # test, and what is in no split
    assert target.labels.tolist() == [0, UNLABELLED]
    assert target.column("sex").tolist() == ["M", ""]
    item = target[1]
    assert (item["label"], item["id"], item["domain"], item["group"]) == (
        None,
        "b/5.png",
        "south",
        "p4",
    )
    np.testing.assert_allclose(item["image"] * 255, 5)


def test_parquet_is_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table(tmp_path)
    columns: dict[str, list[Any]] = {name: [] for name in HEADER.split(",")}
    for row in ROWS:
        for name, value in zip(columns, row.split(","), strict=True):
            columns[name].append(value or None)
    columns["label"] = [0.0, 1.0, 1.0, 0.0, 0.0, None]  # what a gap makes of integers
    parquet.write_table(pyarrow.table(columns), tmp_path / "site.parquet")
    target = load_table(TableConfig(path=str(tmp_path / "site.parquet"), target="south"), "target")
    assert target.labels.tolist() == [0, UNLABELLED]
    assert target.class_names == ("0", "1")
    assert target.column("sex").tolist() == ["M", ""]


def test_only_a_path_is_needed(tmp_path: Path) -> None:
    path = table(tmp_path, ["x.png", "y.png"], header="path")
    target = load_table(TableConfig(path=path), "target")
    assert (len(target), target.labelled, set(target.domains.tolist())) == (2, False, {"site"})
    with pytest.raises(InputError, match="does not say which images are for training"):
        load_table(TableConfig(path=path), "train")


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([*ROWS, "a/6.png,ill,test,north,p0,F"], HEADER, "1 group.*p0 is in train and test"),
        ([*ROWS, "a/0.png,ill,test,north,p9,F"], HEADER, r"1 file.*a/0\.png is in train and test"),
        ([*ROWS, "a/6.png,ill,dev,north,p9,F"], HEADER, "the split 'dev'"),
        ([*ROWS, "../c.png,ill,test,north,p9,F"], HEADER, "lies outside"),
        ([*ROWS, "a/../../c.png,ill,test,north,p9,F"], HEADER, "lies outside"),
        ([*ROWS, "/etc/c.png,ill,test,north,p9,F"], HEADER, "lies outside"),
        ([*ROWS, ",ill,test,north,p9,F"], HEADER, "a row without a path"),
        ([*ROWS, "a/6.png,ill"], HEADER, "row 8: has 2 values"),
        ([*ROWS, "a/0.png,well,train,north,p0,F"], HEADER, r"a/0\.png as ill and as well"),
        ([*ROWS, "./a//0.png,well,train,north,p0,F"], HEADER, r"0\.png as ill and as well"),
        ([*ROWS, "./a/0.png,ill,test,north,p9,F"], HEADER, r"1 file.*in train and test"),
        ([*ROWS, "a/6.png,ill,test,north,p0 ,F"], HEADER, "1 group.*p0 is in train and test"),
        ([*ROWS, "a/6.png,ill,train,north,7,F", "a/7.png,ill,test,north,7.0,F"], HEADER, "as 7 is"),
        ([*ROWS, 'a/6.png,"ill,train,north,p9,F'], HEADER, "a quote is not closed"),
        ([*ROWS, "a/6.png,Ill,train,north,p9,F"], HEADER, "'Ill' and 'ill', which differ in case"),
        ([*ROWS, "a/6.png,ill\u200b,train,north,p9,F"], HEADER, "which look alike: write them"),
        ([*ROWS, "a/6.png,we\uff4cl,train,north,p9,F"], HEADER, "which look alike"),
        (ROWS, HEADER.replace("path", "file"), "no column path"),
        (ROWS, HEADER.replace("sex", "path"), "names a column twice"),
        ([], HEADER, "no rows"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(
    tmp_path: Path, rows: list[str], header: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_table(TableConfig(path=table(tmp_path, rows, header), source="north"), "train")


@pytest.mark.parametrize(
    ("one", "other", "labels", "missing"),
    [
        ("NA", "", [UNLABELLED, UNLABELLED, 0], None),
        ("nan", "-1", [UNLABELLED, UNLABELLED, 0], None),
        ("unsure", " ", [UNLABELLED, UNLABELLED, 0], ["unsure"]),
        ("1", "1.0", [0, 0, 1], None),
    ],
)
def test_an_image_that_is_listed_again_with_the_same_in_other_words_is_listed_alike(
    tmp_path: Path, one: str, other: str, labels: list[int], missing: list[str] | None
) -> None:
    rows = [f"x.png,{one}", f"x.png,{other}", "y.png,2"]
    path = table(tmp_path, rows, "path,label")
    images = load_table(TableConfig(path=path, missing=missing), "target")
    assert images.labels.tolist() == labels
    assert "1 row(s) list an image again, which then counts as often" in images.notes


def test_a_word_that_stands_for_none_contradicts_one_that_is_a_class(tmp_path: Path) -> None:
    path = table(tmp_path, ["x.png,NA", "x.png,ill", "y.png,NA"], "path,label")
    with pytest.raises(InputError, match=r"x\.png as unlabelled and as ill"):
        load_table(TableConfig(path=path), "target")
    with pytest.raises(InputError, match=r"x\.png as NA and as ill"):
        load_table(TableConfig(path=path, missing=[]), "target")


def test_a_quote_within_a_value_ends_no_row(tmp_path: Path) -> None:
    rows = ['x.png,"ill" at 5",test,north,p0,"F"" or M"', "y.png,ill,test,north,p1,F"]
    images = load_table(TableConfig(path=table(tmp_path, rows)), "target")
    assert images.column("sex").tolist() == ['F" or M', "F"]
    assert images.class_names == ("ill", 'ill at 5"')


def test_blanks_around_values_make_no_other_patient_domain_or_group(tmp_path: Path) -> None:
    rows = ["x.png, ill , test,\u00a0north ,p0,F ", "y.png,ill ,test ,north, p0 , F", "z.png,,,, ,"]
    images = load_table(TableConfig(path=table(tmp_path, rows), target="north"), "target")
    assert (images.groups.tolist(), images.column("sex").tolist()) == (["p0", "p0"], ["F", "F"])
    every = load_table(TableConfig(path=table(tmp_path, rows)), "target")
    assert every.groups.tolist() == ["p0", "p0", "z.png"]


@pytest.mark.parametrize("word", ["NA", "nan", "-1", "None"])
@pytest.mark.parametrize("column", ["group", "patient"])
def test_images_without_a_group_are_no_one_patient(tmp_path: Path, word: str, column: str) -> None:
    rows = [f"{split}-{n}.png,ill,{split},{word}" for split in ("train", "test") for n in range(2)]
    path = table(tmp_path, rows, f"path,label,split,{column}")
    images = load_table(TableConfig(path=path, group=column), "train")
    assert images.groups.tolist() == ["train-0.png", "train-1.png"]


def test_absent_tables_domains_and_splits(tmp_path: Path) -> None:
    path = table(tmp_path)
    for config, split, message in (
        (TableConfig(), "train", "data.path is missing"),
        (TableConfig(path=str(tmp_path / "no.csv")), "train", "expected no.csv in"),
        (TableConfig(path=path, target="suoth"), "target", "did you mean south"),
        (
            TableConfig(path=path, source="south"),
            "train",
            "no images for train.*its splits .empty., test",
        ),
    ):
        with pytest.raises(InputError, match=message):
            load_table(config, split)  # type: ignore[arg-type]


def test_unreadable_files_stop_or_are_skipped(tmp_path: Path) -> None:
    path = table(tmp_path)
    (tmp_path / "b" / "5.png").write_text("broken")
    (tmp_path / "a" / "0.png").unlink()  # in a split that is not in use
    with pytest.raises(InputError, match=r"1 of 2 files cannot be used, the first is b/5\.png"):
        load_table(TableConfig(path=path, target="south"), "target")
    images = load_table(TableConfig(path=path, target="south", on_error="skip"), "target")
    assert images.ids.tolist() == ["b/4.png"]
    assert list(images.skipped) == ["b/5.png"]
    assert "is no image, or damaged" in images.skipped["b/5.png"]
    assert images[0]["image"].shape == (1, 8, 8)


def class_folders(root: Path, count: int = 6) -> Path:
    for name in ("ill", "well"):
        for number in range(count):
            write_picture(root / name / f"{number}.png", grey(8, (8, 8, 3)))
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.mark.slow
def test_a_table_of_a_million_rows_opens_in_seconds(tmp_path: Path) -> None:
    write_picture(tmp_path / "patient_000000" / "image_0000000.png", grey())
    lines = (
        f"patient_{n // 4:06d}/image_{n:07d}.png,{n // 4 % 3},p{n // 4},{'FM'[n % 2]},{20 + n % 70}"
        for n in range(10**6)
    )
    (tmp_path / "t.csv").write_text("path,label,group,sex,age\n" + "\n".join(lines))
    program = (
        "import resource, time\n"
        "from holdfast.datamodules.table import TableConfig, load_table\nstart = "
        "time.perf_counter()\n"
        f"images = load_table(TableConfig(path={str(tmp_path / 't.csv')!r}, check=False), "
        "'target')\n"
        "print(len(images), time.perf_counter() - start, "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    count, seconds, megabytes = map(float, done.stdout.split())
    assert count == 10**6
    assert seconds < 60  # some 8 on an idle core
    assert megabytes < 1024


def test_class_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "clinic")
    target = load_folder(FolderConfig(root=str(root)), "target")
    assert (len(target), target.class_names, target.channels) == (12, ("ill", "well"), 3)
    assert target.ids[0] == "ill/0.png"
    with pytest.raises(InputError, match=r"data\.shares"):
        load_folder(FolderConfig(root=str(root)), "train")
    config = FolderConfig(root=str(root), shares=[0.5, 0.25, 0.25])
    parts = [set(load_folder(config, split).ids.tolist()) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert len(set.union(*parts)) == 12
    assert set(load_folder(config, "target").ids.tolist()) == parts[2]
    other = class_folders(tmp_path / "elsewhere", 2)
    assert (
        len(
            load_folder(
                FolderConfig(root=str(root), target=str(other), shares=config.shares), "target"
            )
        )
        == 4
    )


def test_split_folders_flat_folders_and_patients(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        class_folders(tmp_path / "cut" / split, 2)
    (tmp_path / "cut" / "train" / "notes.txt").unlink()
    config = FolderConfig(root=str(tmp_path / "cut"))
    assert [len(load_folder(config, split)) for split in ("train", "val", "test", "target")] == [
        4,
        4,
        4,
        4,
    ]  # type: ignore[arg-type]
    write_picture(tmp_path / "flat" / "0.png", grey())
    flat = load_images("folder", FolderConfig(root=str(tmp_path / "flat")), "target")
    assert (flat.labelled, flat.ids.tolist(), flat.groups.tolist()) == (False, ["0.png"], ["0.png"])
    patients = FolderConfig(root=str(class_folders(tmp_path / "patients")), folders="groups")
    images = load_folder(patients, "target")
    assert (images.labelled, set(images.groups.tolist())) == (False, {"ill", "well"})
    write_picture(tmp_path / "patients" / "0.png", grey())
    with pytest.raises(InputError, match="beside its class folders"):
        load_folder(patients, "target")
    with pytest.raises(InputError, match="does not exist"):
        load_folder(FolderConfig(root=str(tmp_path / "absent")), "target")
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="no image files"):
        load_folder(FolderConfig(root=str(tmp_path / "void")), "target")


def test_shares_are_cut_between_groups() -> None:
    groups = text(f"p{i // 7}" for i in range(700))
    splits = cut(groups, (0.7, 0.15, 0.15), 0)
    assert all(len(set(splits[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    sizes = [int((splits == name).sum()) for name in ("train", "val", "test")]
    assert sizes == pytest.approx([490, 105, 105], abs=7)
    assert (cut(groups, (0.7, 0.15, 0.15), 0) == splits).all()
    assert (cut(groups, (0.7, 0.15, 0.15), 1) != splits).any()
    few = cut(text(["a"] * 98 + ["b", "c"]), (0.8, 0.1, 0.1), 0)
    assert set(few.tolist()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"channels": 2},
        {"window": [3, 1]},
        {"window": "lung"},
        {"cache": -1.0},
        {"shares": [0.5, 0.5, 0.5]},
        {"on_error": "skip", "check": False},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"data\."):
        FilesConfig(**options)


def test_labels_are_mapped_by_name(tmp_path: Path) -> None:
    images = load_folder(FolderConfig(root=str(class_folders(tmp_path))), "target")
    assert in_classes_of(images, ("well", "ill", "dead")).labels.tolist() == [1] * 6 + [0] * 6
    with pytest.raises(
        InputError,
        match=r"ill \(6 images\) cannot be mapped to the source's classes \(well, sick\)",
    ):
        in_classes_of(images, ("well", "sick"))
    assert (
        in_classes_of(images, ("well", "sick"), {"ill": "sick"}).labels.tolist()
        == [1] * 6 + [0] * 6
    )
    assert (
        in_classes_of(images, ("well", "sick"), {"ill": None}).labels.tolist() == [-1] * 6 + [0] * 6
    )
    for classes, message in (
        ({"il": "sick"}, "did you mean ill"),
        ({"ill": "sik"}, "did you mean sick"),
    ):
        with pytest.raises(InputError, match=message):
            in_classes_of(images, ("well", "sick"), classes)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]
)
def test_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    path = Path(table(tmp_path))
    text = path.read_text().replace("ill", "völlig krank")
    path.write_bytes(text.encode(encoding))
    config = TableConfig(path=str(path), source="north")
    if encoding == "cp1252":
        with pytest.raises(InputError, match=r"not in UTF-8: save it so .* iconv -f cp1252"):
            load_table(config, "train")
    elif encoding == "utf-16-le":  # without a mark
        with pytest.raises(InputError, match="UTF-16 without a mark"):
            load_table(config, "train")
    else:
        assert load_table(config, "train").class_names == ("völlig krank", "well")


@pytest.mark.parametrize(
    ("first", "mark"), [("sep=;\n", ";"), ('"sep=;"\r\n', ";"), ("sep=|\n", "|"), ("", "\t")]
)
def test_what_spreadsheets_write(tmp_path: Path, first: str, mark: str) -> None:
    path = Path(table(tmp_path))
    lines = ["Path,LABEL,Split,domain,group,age, at entry", *(f"{row},57" for row in ROWS)]
    lines = [line.replace(",", mark, 6) for line in lines]
    path.write_text(first + "\n".join(lines))
    images = load_table(TableConfig(path=str(path), source="north"), "train")
    assert images.class_names == ("ill", "well")
    assert images.ids.tolist() == ["a/0.png", "a/1.png"]
    path.write_text(first + "\n".join([*lines, "a"]))
    with pytest.raises(InputError, match=f"row {8 + bool(first)}: has 1 values"):
        load_table(TableConfig(path=str(path), source="north"), "train")
    (tmp_path / "site.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="a spreadsheet: save it as CSV"):
        load_table(TableConfig(path=str(tmp_path / "site.xlsx")), "train")


def test_a_domain_in_another_column(tmp_path: Path) -> None:
    path = table(tmp_path, header=HEADER.replace("domain", "site"))
    with pytest.raises(InputError, match="its column 'site' has it, so call that column domain"):
        load_table(TableConfig(path=path, source="north"), "train")
    with pytest.raises(InputError, match=f"a folder of images is data=folder data.root={tmp_path}"):
        load_table(TableConfig(path=path, target=str(tmp_path)), "target")


def test_columns_in_bands(tmp_path: Path) -> None:
    ages = ("7", "20", "39.5", "", "058Y", "006M", "100W", "900D", "nan")
    rows = [f"{i}.png,{age}" for i, age in enumerate(ages)]
    images = load_table(TableConfig(path=table(tmp_path, rows, "path,age")), "target")
    bands = ["0-19", "20-39", "20-39", "", "40-59", "0-19", "0-19", "0-19", ""]
    assert images.column("age/20").tolist() == bands
    for name, message in (
        ("aeg", "did you mean age"),
        ("age/x", "whole number"),
        ("domain/2", r"no number.*data\.subgroups=\[domain\]"),
    ):
        with pytest.raises(InputError, match=message):
            images.column(name)
