"""Published sets with masks: a small tree of each layout, read with its masks and its domains."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from holdfast.datamodules import DATA, load_images
from holdfast.datamodules.folder import FolderConfig
from holdfast.datamodules.images import ImageSet
from holdfast.tta.config import CONFIGS
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import write_picture
from tests.datamodules.test_maskfiles import discs

VOLUME = (14, 16, 12)


def nifti(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([1.0, 1, 2, 1])), path)


def polyps(root: Path) -> None:
    for number in range(12):
        for below, kinds in (
            ("TrainDataset", ("image", "mask")),
            ("TestDataset/Kvasir", ("images", "masks")),
            ("TestDataset/ETIS", ("images", "masks")),
        ):
            mask = discs(number)
            write_picture(root / below / kinds[0] / f"{number}.png", mask * 100)
            write_picture(root / below / kinds[1] / f"{number}.png", mask * np.uint8(120))


def fundus(root: Path) -> None:
    values = np.array([255, 128, 0], np.uint8)
    for site in ("REFUGE", "ORIGA"):
        for number in range(12):
            mask = discs(number)
            write_picture(root / site / "images" / f"{number}.png", mask * 100)
            write_picture(root / site / "masks" / f"{number}.png", values[mask])


def prostate(root: Path) -> None:
    for site in ("RUNMC", "UCL"):
        for number in range(12):
            mask = discs(number, VOLUME)
            ending = "Segmentation" if number % 2 else "segmentation"
            nifti(root / site / f"Case{number:02d}.nii.gz", mask * np.float32(100))
            nifti(root / site / f"Case{number:02d}_{ending}.nii.gz", mask)


def scgm(root: Path) -> None:
    for site in (1, 2):
        for number in range(12):
            mask = discs(number, VOLUME)
            name = f"site{site}-sc{number:02d}"
            nifti(root / f"{name}-image.nii.gz", mask * np.float32(100))
            for rater in range(1, 5):
                rated = mask if rater == 1 else np.minimum(mask, 1).astype(np.uint8)
                nifti(root / f"{name}-mask-r{rater}.nii.gz", rated)


def brats(root: Path) -> None:
    for cohort in ("GLI", "SSA"):
        for number in range(12):
            mask = discs(number, VOLUME)
            case = f"BraTS-{cohort}-{number // 2:05d}-{number % 2:03d}"
            for sequence in ("t1c", "t1n", "t2f", "t2w"):
                nifti(root / case / f"{case}-{sequence}.nii.gz", mask * np.float32(100))
            nifti(root / case / f"{case}-seg.nii.gz", mask)


def mnms(root: Path) -> None:
    rows = []
    for number in range(24):
        mask = discs(number, VOLUME)
        code = f"A{number}B"
        frames = [np.zeros_like(mask)] * 4
        frames[number % 2] = frames[3] = mask
        gt = np.stack(frames, -1)
        part = ("Training/Labeled", "Testing")[number % 2]
        series = nibabel.Nifti1Image(gt * np.float32(100), np.diag([1.0, 1, 2, 1]))
        series.header.set_xyzt_units("mm", "sec")
        path = root / part / code / f"{code}_sa.nii.gz"
        path.parent.mkdir(parents=True)
        nibabel.save(series, path)
        nifti(root / part / code / f"{code}_sa_gt.nii.gz", gt)
        rows.append([number, code, "Siemens", "AB"[number // 12], 1, number % 2, 3])
    name = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    with (root / name).open("w", newline="") as file:
        header = ["", "External code", "VendorName", "Vendor", "Centre", "ED", "ES"]
        csv.writer(file).writerows([header, *rows])


#: Trees, the source and the target of each, and the names of its structures.
TREES: dict[str, tuple[Callable[[Path], None], str, str, tuple[str, ...]]] = {
    "polyps": (polyps, "TrainDataset", "ETIS", ("polyp",)),
    "fundus": (fundus, "REFUGE", "ORIGA", ("disc", "cup")),
    "prostate": (prostate, "RUNMC", "UCL", ("prostate",)),
    "scgm": (scgm, "site1", "site2", ("grey matter", "white matter")),
    "brats": (brats, "GLI", "SSA", ("necrosis", "edema", "enhancing")),
    "mnms": (mnms, "A", "B", ("LV", "MYO", "RV")),
}


def load(kind: str, root: Path, split: Any, **more: Any) -> ImageSet:
    given = dict(OmegaConf.load(CONFIGS / "data" / f"{kind}.yaml").items())
    del given["kind"]
    given.pop("size", None)
    given.pop("channels", None)
    _, source, target, _ = TREES[kind]
    more = {"source": source, "target": target, **more}
    return load_images(kind, DATA[kind](root=str(root), **given, **more), split)


@pytest.mark.parametrize("kind", TREES)
def test_every_tree_is_read_with_its_masks(kind: str, tmp_path: Path) -> None:
    tree, source, target, structures = TREES[kind]
    tree(tmp_path)
    sets = {split: load(kind, tmp_path, split) for split in ("train", "val", "test", "target")}
    for split, images in sets.items():
        assert images.class_names == ("background", *structures)
        assert set(images.domains.tolist()) == {target if split == "target" else source}
        assert images.target.known.all()
        item = images[0]
        shown = (item["image"][0] / item["image"].max() * 2).round().long()
        if len(structures) == 1 and kind == "polyps":
            expected = (shown > 1).long()  # grey at edges, half of it below the half
        else:
            expected = shown.clamp(max=len(structures))
        assert torch.equal(item["mask"], expected)
    groups = [set(images.groups.tolist()) for images in sets.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert len(sets["target"]) == (24 if kind == "mnms" else 12)
    assert sets["train"].channels == (4 if kind == "brats" else 1)


@pytest.mark.parametrize("kind", TREES)
def test_what_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the folder absent in"):
        load(kind, tmp_path / "absent", "train")
    with pytest.raises(InputError, match=r"expected|no image files"):
        load(kind, tmp_path, "train")


def test_sites_of_tables_and_raters(tmp_path: Path) -> None:
    values = np.array([0, 255, 128], np.uint8)
    for site in ("BinRushed", "Magrabia"):
        for part in ("train", "test"):
            rows = [["image", "mask"]]
            for number in range(6):
                mask, name = discs(number), f"{site}/{part}{number}"
                write_picture(tmp_path / f"{name}.png", mask * 100)
                write_picture(tmp_path / f"{name}-1.tif", values[mask])
                write_picture(tmp_path / f"{name}-2.tif", values[np.minimum(mask, 1)])
                rows.append([f"{name}.png", f"{name}.tif"])
            with (tmp_path / f"{site}_{part}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    words: dict[str, Any] = {"bright": True, "source": "BinRushed", "target": "Magrabia"}
    images = load("fundus", tmp_path, "target", **words)
    assert len(images) == 12
    assert torch.equal(images[2]["mask"], (images[2]["image"][0] * 255 / 100).round().long())
    second = load("fundus", tmp_path, "target", **words, rater=2)
    assert second[2]["mask"].max() == 1
    (tmp_path / "Magrabia_test.csv").write_text("image,label\n")
    with pytest.raises(InputError, match=r"has no rows|has no column 'mask'"):
        load("fundus", tmp_path, "target", **words)


def test_raters_and_sequences_are_chosen(tmp_path: Path) -> None:
    scgm(tmp_path / "scgm")
    other = load("scgm", tmp_path / "scgm", "target", rater=2)
    assert other[0]["mask"].max() == 1
    with pytest.raises(InputError, match="must be 1 to 4"):
        load("scgm", tmp_path / "scgm", "target", rater=5)
    brats(tmp_path / "brats")
    two = load("brats", tmp_path / "brats", "target", sequences=["t2f", "t1c"])
    assert two.channels == 2
    with pytest.raises(InputError, match="names 't3'"):
        load("brats", tmp_path / "brats", "target", sequences=["t3"])
    case = tmp_path / "brats" / "BraTS-SSA-00000-000"
    (case / "BraTS-SSA-00000-000-t2f.nii.gz").unlink()
    with pytest.raises(InputError, match=r"t2f\.nii\.gz.* does not exist"):
        load("brats", tmp_path / "brats", "target", sequences=["t1c", "t2f"])


def test_a_volume_of_a_time_series_is_chosen_by_its_number(tmp_path: Path) -> None:
    series = np.stack([np.full(VOLUME, 40.0 * time, np.float32) for time in range(6)], -1)
    image = nibabel.Nifti1Image(series, np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "cine.nii.gz")
    table = tmp_path / "t.csv"

    def one(name: str) -> ImageSet:
        table.write_text(f"path\n{name}\n")
        return load_images("table", DATA["table"](path=str(table), range=[0, 200]), "target")

    assert one("cine.nii.gz@3")[0]["image"].unique().tolist() == pytest.approx([0.6])
    for name, message in {
        "cine.nii.gz": "is a time series of 6 volumes",
        "cine.nii.gz@6": r"has 6 volume\(s\), of which number 6, from 0, is none",
        "cine.png@1": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            one(name)
    assert FolderConfig(labels={"1-3": "cell"}).labels == {"1-3": "cell"}
