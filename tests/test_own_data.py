"""A site's own files through train.py and adapt.py, from end to end."""

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig, completed, configure
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.programs import adapt, train
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from tests.conftest import QUICK
from tests.datamodules.dicoms import write_dicom
from tests.datamodules.test_files import write_picture

Capture = pytest.CaptureFixture[str]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(program: Any, *words: str) -> None:
    assert program.main([*QUICK, *words]) == 0


def clinic(folder: Path, count: int = 60, noise: float = 20.0) -> str:
    """A table of 16-bit images of two patients' worth of each class a group; dark ones are well."""
    rng = np.random.default_rng(0)
    lines = ["path,label,split,domain,group,sex,age"]
    for number in range(count):
        group, label = number // 2, (number // 2) % 2
        split = ("train", "train", "val", "test")[(group // 2) % 4]
        pixels = (
            rng.normal(8000 + 9000 * label, 100 * noise, (16, 16)).clip(0, 65535).astype(np.uint16)
        )
        name = f"images/{number:03d}.png"
        write_picture(folder / name, pixels)
        seen, sex = ("well", "ill")[label], "FM"[group % 3 == 0]
        lines.append(f"{name},{seen},{split},clinic,p{group},{sex},{20 + group}")
    (folder / "clinic.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "clinic.csv")


def test_a_clinic_trains_and_another_adapts(tmp_path: Path, capsys: Capture) -> None:
    path, source = clinic(tmp_path / "here"), tmp_path / "source"
    small = [
        "epochs=2",
        "batch_size=8",
        "calibrate.streams=12",
        "data.subgroups=[sex]",
        "data.aggregate=group",
        f"output={source}",
    ]
    run(train, "data=table", f"data.path={path}", *small)
    metrics = json.loads((source / "metrics.json").read_text())
    tested = {row["group"] for row in rows(Path(path)) if row["split"] == "test"}
    assert (metrics["level"], metrics["groups"]) == ("group", len(tested))
    assert set(metrics["subgroups"]["sex"]) == {"F", "M"}
    # Another site: its own names, a patient without label, and a damaged file.
    there = Path(clinic(tmp_path / "there"))
    text = there.read_text().replace(",ill,", ",sick,").replace(",well,", ",healthy,")
    there.write_text(
        "\n".join(
            line for line in text.splitlines() if ",train," not in line and ",val," not in line
        )
        + "\n"
    )
    broken = rows(there)[3]["path"]
    (there.parent / broken).write_text("damaged")
    site = [
        f"source={source}",
        f"data.path={there}",
        "stream.batch_size=4",
        "method=tent",
        f"output={tmp_path / 'out'}",
    ]
    assert adapt.main([*QUICK, *site]) == 2
    assert broken in capsys.readouterr().err
    assert adapt.main([*QUICK, *site, "data.on_error=skip"]) == 2
    assert "cannot be mapped to the source's classes (ill, well)" in capsys.readouterr().err
    scoring = [
        "data.subgroups=[sex,age/10]",
        "data.aggregate=group",
        "bootstrap=50",
        "data.classes={sick: ill, healthy: well}",
    ]
    run(adapt, *site, "data.on_error=skip", *scoring)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    predictions = rows(tmp_path / "out" / "predictions.csv")
    asked = len(rows(there))
    assert len(predictions) == asked
    patients = len({row["group"] for row in rows(there)})
    assert (metrics["level"], metrics["groups"]) == ("group", patients)
    assert set(metrics["subgroups"]) == set(metrics["worst"]) == {"sex", "age/10"}
    figures = {"accuracy", "balanced_accuracy", "auroc", "sensitivity"}
    assert set(metrics["intervals"]) == figures
    assert [row["id"] for row in predictions if row["reason"]] == [broken]
    assert (predictions[-1]["prediction"], predictions[-1]["prob_ill"]) == ("", "")


def test_size_and_fit_that_training_was_told_hold_for_other_files_too(
    source: Path, tmp_path: Path
) -> None:
    trained = SourceCheckpoint.load(source)
    data = {"kind": "table", "path": "here.csv", "size": [32, 32], "fit": "crop", "channels": 3}
    replace(trained, data=data).save(tmp_path / "source.ckpt")
    words = [f"source={tmp_path}", "data=folder", f"data.root={tmp_path}"]
    found = configure(words).data.options
    assert (found.size, found.fit, found.channels) == ([32, 32], "crop", 3)
    found = configure([*words, "data.size=64", "data.fit=pad"]).data.options
    assert (found.size, found.fit, found.channels) == (64, "pad", 3)
    given = {"source": str(tmp_path), "data": {"kind": "folder", "root": str(tmp_path)}}
    assert completed(AdaptConfig, given)[0].data.options.fit == "crop"
    assert configure([f"source={tmp_path}", "data=npz", "data.path=x.npz"]).data.kind == "npz"


def test_a_source_without_test_images_and_with_images_nobody_labelled(
    tmp_path: Path, capsys: Capture
) -> None:
    path = Path(clinic(tmp_path))
    lines = [line for line in path.read_text().splitlines() if ",test," not in line]
    blank = lines[1].replace(",well,", ",nan,")
    path.write_text("\n".join([lines[0], blank, *lines[2:]]))
    words = ["data=table", f"data.path={path}", "epochs=1", "batch_size=8", "calibrate=off"]
    run(train, *words, f"output={tmp_path / 'source'}")
    assert "there are no labelled test images" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "source" / "metrics.json").read_text())
    assert list(metrics) == ["val_balanced_accuracy"]
    # Files that cannot be used are told of all splits at once.
    damaged = [
        next(row["path"] for row in rows(path) if row["split"] == s) for s in ("train", "val")
    ]
    for name in damaged:
        (tmp_path / name).write_text("damaged")
    assert train.main([*QUICK, *words]) == 2
    assert f"2 of {len(lines) - 1} files cannot be used" in capsys.readouterr().err
    without = [line for line in lines if ",val," not in line]
    path.write_text("\n".join(without))
    assert train.main([*QUICK, *words, "data.on_error=skip"]) == 2
    assert "no images for val" in (told := capsys.readouterr().err)
    assert "data.shares=" in told


def test_how_the_source_was_cut_into_splits_holds_for_no_other_table(
    source: Path, tmp_path: Path
) -> None:
    lines = ["path", *(f"{number}.png" for number in range(20))]
    for line in lines[1:]:
        write_picture(tmp_path / line, np.full((32, 32, 3), 7, np.uint8))
    (tmp_path / "there.csv").write_text("\n".join(lines))
    data = {"kind": "table", "path": str(tmp_path / "here.csv"), "shares": [0.5, 0.25, 0.25]}
    trained = replace(SourceCheckpoint.load(source), data=data)
    trained.save(tmp_path / "source.ckpt")
    words = [f"source={tmp_path}", f"data.path={tmp_path / 'there.csv'}"]
    there = configure(words)
    assert there.data.options.shares is None
    assert len(Assembly.of(there, trained).images) == 20
    given = {"source": str(tmp_path), "data.path": tmp_path / "there.csv"}
    assert completed(AdaptConfig, given)[0].data.options.shares is None
    assert configure([*words, "data.shares=[.5,.2,.3]"]).data.options.shares == [0.5, 0.2, 0.3]
    same = configure([words[0], f"data.path={tmp_path}/./here.csv"])
    assert same.data.options.shares == [0.5, 0.25, 0.25]


def test_patients_are_scored_where_something_says_who_they_are(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    for number in range(4):
        write_picture(tmp_path / f"{number}.png", np.full((32, 32, 3), 7, np.uint8))
    path = tmp_path / "site.csv"
    path.write_text("path\n" + "".join(f"{number}.png\n" for number in range(4)))
    words = [*QUICK, f"source={source}", "data=table", f"data.path={path}", "data.aggregate=group"]
    assert adapt.main([*words, "check=only"]) == 2
    assert "nothing says which images are of one" in capsys.readouterr().err


def test_labels_of_other_images_are_told(source: Path, tmp_path: Path, capsys: Capture) -> None:
    for number in range(4):
        write_picture(tmp_path / "site" / f"{number}.png", np.full((32, 32, 3), 7, np.uint8))
    labels = tmp_path / "labels.csv"
    words = [*QUICK, f"source={source}", "data=folder", f"data.root={tmp_path / 'site'}"]
    for name, told in (("site/0.png", True), ("0.png", False)):
        labels.write_text(f"id,label\n{name},{SourceCheckpoint.load(source).class_names[0]}\n")
        assert adapt.main([*words, f"labels={labels}", "check=only"]) == 0
        said = "none of the 1 ids in labels=" in capsys.readouterr().err
        assert said == told


def test_files_that_are_something_else_are_told(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    path.write_text("path\na\\0.png\n")
    with pytest.raises(InputError, match="paths have slashes, not backslashes"):
        load_table(TableConfig(path=str(path)), "target")
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/workbook.xml", "")
    with pytest.raises(InputError, match="an Excel workbook by its content"):
        load_table(TableConfig(path=str(path)), "target")


def test_the_real_order(source: Path, tmp_path: Path) -> None:
    lines = ["path,acquired"]
    for number in range(12):
        write_picture(tmp_path / f"{number}.png", np.full((32, 32, 3), number, np.uint8))
        lines.append(f"{number}.png,2024-05-{30 - number}")
    (tmp_path / "clinic.csv").write_text("\n".join(lines))
    words = [
        f"source={source}",
        "data=table",
        f"data.path={tmp_path / 'clinic.csv'}",
        "stream.batch_size=4",
        "method=norm",
    ]
    run(adapt, *words, "stream=time", "stream.column=acquired", f"output={tmp_path / 'out'}")
    assert [row["id"] for row in rows(tmp_path / "out" / "predictions.csv")] == [
        f"{n}.png" for n in reversed(range(12))
    ]


def test_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        for label in ("large", "small"):
            for number in range(count // 2):
                volume = rng.normal(0, 20, (16, 16, 16)).astype(np.float32)
                reach = 6 if label == "large" else 2
                volume[8 - reach : 8 + reach, 8 - reach : 8 + reach, 8 - reach : 8 + reach] += 500
                path = tmp_path / "heads" / split / label / f"{number}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    source = tmp_path / "source"
    data = [
        "data=folder",
        f"data.root={tmp_path / 'heads'}",
        "data.window=percentile",
        "data.size=[8,8,8]",
    ]
    run(train, *data, "epochs=1", "batch_size=4", "calibrate=off", f"output={source}")
    words = ["stream.batch_size=3", "method=tent", "shift=noise", f"output={tmp_path / 'out'}"]
    run(adapt, f"source={source}", *words, "report=true")
    assert "</html>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 6


@pytest.mark.real
def test_real_images_written_out_are_read_as_they_were(data_folder: Path, tmp_path: Path) -> None:
    npz = NpzConfig(
        path=str(data_folder / "nuclei_patches.npz"), source="fluor_256", target="fluor_360"
    )
    original = load_npz(npz, "target")
    pixels = np.asarray(original.images)
    for row in range(0, 120, 2):
        name = f"{original.class_names[original.labels[row]]}/{row:03d}"
        write_picture(tmp_path / "png" / f"{name}.png", pixels[row])
        write_picture(tmp_path / "tif" / f"{name}.tif", pixels[row])
        (tmp_path / "dcm" / name).parent.mkdir(parents=True, exist_ok=True)
        write_dicom(tmp_path / "dcm" / f"{name}.dcm", pixels[row], bits=8)
        (tmp_path / "nii" / name).parent.mkdir(parents=True, exist_ok=True)
        nifti = nibabel.Nifti1Image(pixels[row].transpose(1, 0, 2)[:, :, None], np.eye(4))
        nibabel.save(nifti, tmp_path / "nii" / f"{name}.nii.gz")
    for kind in ("png", "tif", "dcm", "nii"):
        images = load_folder(FolderConfig(root=str(tmp_path / kind)), "target")
        at = [int(Path(name).name[:3]) for name in images.ids.tolist()]
        batch, expected = images.batch(np.arange(len(images))), original.batch(at)
        assert (batch["image"] - expected["image"]).abs().max() < 1e-6, kind
        names = [images.class_names[label] for label in batch["label"].tolist()]
        assert names == [original.class_names[label] for label in expected["label"].tolist()]


@pytest.mark.slow
@pytest.mark.real
def test_a_folder_of_real_images_is_as_good_as_the_array(data_folder: Path, tmp_path: Path) -> None:
    npz = NpzConfig(
        path=str(data_folder / "nuclei_patches.npz"), source="fluor_256", target="fluor_360"
    )
    for split in ("train", "val", "test"):
        images = load_npz(npz, split)  # type: ignore[arg-type]
        for row in range(0, len(images), 3):
            name = images.class_names[images.labels[row]]
            write_picture(
                tmp_path / "here" / split / name / f"{row:05d}.png", np.asarray(images.images)[row]
            )
    target = load_npz(npz, "target")
    for row in range(len(target)):
        name = f"{target.class_names[target.labels[row]]}/{row:05d}.png"
        write_picture(tmp_path / "there" / name, np.asarray(target.images)[row])
    source = tmp_path / "source"
    run(
        train,
        "data=folder",
        f"data.root={tmp_path / 'here'}",
        f"output={source}",
        "workers=2",
        "epochs=8",
    )
    words = [
        f"source={source}",
        f"data.target={tmp_path / 'there'}",
        "method=dsbr",
        f"output={tmp_path / 'out'}",
    ]
    run(adapt, *words)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["balanced_accuracy"] > 85
    first = (tmp_path / "out" / "predictions.csv").read_text()
    again = tmp_path / "again"
    run(adapt, *words, "workers=2", "data.cache=0", f"output={again}")
    assert (again / "predictions.csv").read_text() == first


def test_a_column_that_may_divide_the_images_is_named(tmp_path: Path) -> None:
    path = Path(clinic(tmp_path, count=24))
    config = TableConfig(path=str(path))
    assert not load_table(config, "train").notes
    lines = path.read_text().splitlines()
    undivided = [lines[0].replace("domain", "Site"), *lines[1:]]
    path.write_text("\n".join(undivided))
    assert not load_table(config, "train").notes  # one site divides nothing
    path.write_text("\n".join([*undivided[:-1], undivided[-1].replace("clinic", "other")]))
    [note] = load_table(config, "train").notes
    assert note.endswith("if Site divides them, call that column domain")
