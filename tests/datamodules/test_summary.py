"""The lines that every run says before it starts."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np

from holdfast.datamodules import load_splits
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.summary import understood
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.datamodules.targets import LabelTarget
from tests.datamodules.test_files import write_picture


def site(folder: Path) -> str:
    """Nine images of three classes: one nobody trains on, one without a label, one damaged."""
    lines = ["path,label,split,domain,patient"]
    splits = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    labels = ["ill", "well", "ill", "well", "NA", "ill", "well", "dead", "ill"]
    for number, (split, label) in enumerate(zip(splits, labels, strict=True)):
        write_picture(folder / f"{number}.png", np.full((8, 6), 20 * number, np.uint8))
        lines.append(f"{number}.png,{label},{split},north,{split}{number % 2}")
    (folder / "8.png").write_text("damaged")
    (folder / "site.csv").write_text("\n".join(lines))
    return str(folder / "site.csv")


def test_a_source(tmp_path: Path) -> None:
    config = TableConfig(path=site(tmp_path), on_error="skip", group="patient")
    data = SourceData(*load_splits("table", config, ("train", "val", "test")).values())
    lines = understood(data.images)
    assert lines[:3] == [
        "classes: 3 (dead: 0, ill: 2, well: 2 images in train)",
        "images: train 4, val 2, test 1",
        "domains: north: 7; patients: 5 (train 2, val 2, test 1) with 1 to 2 images",
    ]
    assert lines[3].startswith("pixels: 8x6, 1 channel; 5 PNG uint8: 0 to 255 becomes 0 to 1")
    note = lines[4]
    assert len(lines) == 5
    for part in (
        "no train image shows dead",
        "no val image shows dead",
        "no test image shows ill, well",
        "val has 2 labelled images, and scores of so few say little",
        "labels taken for missing: 1 x NA (data.missing)",
        "1 training images have no label and are left out",
        "test: 1 file left out, the first 8.png, which ",
    ):
        assert note.count(part) == 1


def test_a_target_of_unknown_patients(tmp_path: Path) -> None:
    target = load_table(TableConfig(path=site(tmp_path), on_error="skip"), "target")
    lines = understood({"target": target})
    assert "patients: one image each, or not known (data.group)" in lines[2]
    assert "the values of 'patient' look like patients: data.group=patient, if so" in lines[4]
    (tmp_path / "flat").mkdir()
    write_picture(tmp_path / "flat" / "0.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "flat" / "notes.txt").write_text("")
    flat = understood({"target": load_folder(FolderConfig(root=str(tmp_path / "flat")), "target")})
    assert flat[:2] == [
        "classes: none, for nothing is labelled",
        "images: target 1 (1 without a label)",
    ]
    assert "files that are no images are left out (1 .txt)" in flat[-1]


def test_volumes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number, turn in enumerate((1, -1)):
        affine = np.diag([turn, 1, 2.5, 1])
        volume = random.random((6, 5, 4), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"{number}.nii.gz")
    images = load_folder(FolderConfig(root=str(tmp_path)), "target")
    lines = understood({"target": replace(images, low=0.0, high=1.0)})
    assert "pixels: 4x5x6, 1 channel; 2 NIfTI float32: 0 to 1 becomes 0 to 1" in lines[3]
    assert lines[4] == (
        "volumes: orientation RAS (axes D, H, W; 1 of 2 were turned to it); stored with a spacing "
        "of 2.5 x 1 x 1 mm"
    )
    array = ImageSet(
        np.zeros((1, 4, 5, 6), np.uint8),
        LabelTarget.of_nothing(1),
        *[np.array(["0"])] * 3,
        spatial_dims=3,
    )
    assert "orientation and spacing are not known" in understood({"target": array})[4]


def test_a_target_that_nobody_labelled_has_classes_and_no_counts(tmp_path: Path) -> None:
    target = load_table(TableConfig(path=site(tmp_path), on_error="skip"), "target")
    target = replace(
        target, target=LabelTarget(np.full(len(target), UNLABELLED), target.class_names)
    )
    assert understood({"target": target})[0].endswith("; no labels in target")


def test_patients_of_one_image_each() -> None:
    ids = np.arange(3).astype(str)
    groups = np.array(["p0", "p1", "p2"])
    images = ImageSet(np.zeros((3, 4, 4), np.uint8), LabelTarget.of_nothing(3), ids, ids, groups)
    lines = understood({"target": images})
    assert "patients: 3 with 1 image each" in "\n".join(lines)


def test_many_classes_take_one_line() -> None:
    names = np.arange(300).astype(str)
    classes = tuple(f"c{number:03d}" for number in range(100))
    labels = np.arange(300) % 100
    images = ImageSet(
        np.zeros((300, 4, 4), np.uint8), LabelTarget(labels, classes), names, names, names
    )
    lines = understood({"target": images, "other": replace(images, groups=labels.astype(str))})
    assert lines[0].endswith("c011: 3 and 88 more of 3 to 3 images in target)")
    assert max(map(len, lines)) < 400
