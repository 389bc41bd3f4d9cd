"""adapt.py on masks: what it leaves, and that predictions lie where their images do."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from holdfast.callbacks.maskfiles import in_file_space, save_mask
from holdfast.callbacks.report.overlays import overlay, read_mask
from holdfast.datamodules.decoding import decode
from holdfast.datamodules.placing import Place
from holdfast.datamodules.reading import Reading
from holdfast.programs import adapt
from tests.conftest import MASKS, QUICK, ROOT


def test_a_run_leaves_masks_cases_metrics_and_a_page(mask_source: Path, tmp_path: Path) -> None:
    words = ["method=tent", "guard=off", "stream.batch_size=8", "report=true"]
    out = tmp_path / "out"
    assert adapt.main([f"source={mask_source}", f"output={out}", *QUICK, *MASKS, *words]) == 0
    with (out / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((out / "metrics.json").read_text())
    assert len(rows) == metrics["images"] == 40
    masks = sorted(path.name for path in (out / "masks").iterdir())
    assert masks == sorted(row["mask"] for row in rows)
    nucleus = np.mean([float(row["dice_nucleus"]) for row in rows])
    assert metrics["per_class"]["nucleus"]["dice"] == pytest.approx(100 * nucleus, abs=1e-2)
    dice = [of["dice"] for of in metrics["per_class"].values()]
    assert metrics["dice"] == pytest.approx(np.mean(dice), abs=1e-3)
    with Image.open(out / "masks" / rows[0]["mask"]) as picture:
        values = np.asarray(picture)
    assert values.shape == (64, 64)
    assert (values == 1).sum() == float(rows[0]["volume_cytoplasm"])
    assert rows[0]["served_by"] == "adapted"
    assert rows[0]["domain"] == "scanner_b"
    assert {"source", "control"} == metrics["against"].keys()
    gap = metrics["against"]["source"]
    assert gap["difference"] == pytest.approx(metrics["dice"] - gap["dice"], abs=1e-3)
    page = (out / "report.html").read_text()
    assert "mean Dice" in page
    assert page.count("<img") >= 12
    assert (out / "trajectory.png").stat().st_size > 10_000
    assert (out / "adapted.ckpt").is_file()
    told = [f"source={mask_source}", f"output={out}", *QUICK, *MASKS, "method=source", "guard=off"]
    few = ["predictions.masks=false", "data.target_images=8", "overwrite=true"]
    assert adapt.main([*told, *few]) == 0
    assert not list((out / "masks").glob("*"))  # results of the earlier run are gone
    assert not (out / "report.html").is_file()


def test_images_without_masks_are_segmented_each_in_its_own_sides(
    mask_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, site = np.random.default_rng(0), tmp_path / "site"
    site.mkdir()
    sides = {"a.png": (64, 64), "b.png": (48, 80), "c.png": (64, 64)}
    for name, side in sides.items():
        Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(site / name)
    (tmp_path / "site.csv").write_text("path\n" + "".join(f"site/{name}\n" for name in sides))
    words = [*QUICK, f"source={mask_source}", "method=norm", "guard=off", "stream.batch_size=1"]
    for number, where in enumerate(
        (["data=folder", f"data.root={site}"], ["data=table", f"data.path={tmp_path / 'site.csv'}"])
    ):
        out = tmp_path / str(number)
        assert adapt.main([*words, *where, f"output={out}"]) == 0
        found = {}
        for path in (out / "masks").iterdir():
            with Image.open(path) as mask:
                found[path.name] = mask.size[::-1]
        assert sorted(found.values()) == sorted(sides.values())
    capsys.readouterr()
    assert adapt.main(["accept", *words[:-3], "method=tent", *where, "labels=none.csv"]) == 2
    assert "by one label an image, and the source is of task" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_trains_adapts_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(ROOT / "configs" / "demo" / "segmentation.yaml"), *QUICK]
    monkeypatch.chdir(tmp_path)
    assert adapt.main(words) == 0
    assert "dice" in capsys.readouterr().out
    out = tmp_path / "runs" / "demo" / "segmentation" / "adapted"
    assert {"masks", "cases.csv", "report.html"} <= {path.name for path in out.iterdir()}
    assert adapt.main(words) == 0  # with the source that is there


@pytest.mark.parametrize("turned", [False, True])
def test_a_volume_leaves_in_the_space_of_its_file(turned: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([0.8, 0.9, 2.5, 1.0])
    affine[:3, 3] = 10, -20, 30
    if turned:  # from right to left, and the second axis last
        affine = affine[:, [0, 2, 1, 3]] @ np.diag([-1.0, 1, 1, 1])
    voxels = rng.integers(0, 200, (12, 10, 6)).astype(np.int16)
    path = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    pixels, _, place = Reading(size=(8, 12, 14)).placed(decode(path))
    place = replace(place, path=path)
    # Bright voxels as the class, as a network would see them at its own size.
    bright = torch.from_numpy(pixels[..., 0] > 100).float()
    mask = in_file_space(torch.stack([1 - bright, bright]), place)
    written = save_mask(tmp_path / ".", "site/case.nii.gz", mask, place)
    assert written.name == "site__case.nii.gz"
    found = nibabel.load(written)
    assert found.shape == voxels.shape
    np.testing.assert_array_equal(found.affine, nibabel.load(path).affine)
    agree = (np.asarray(found.dataobj) == (voxels > 100)).mean()
    assert agree > 0.75  # but for what resizing blurs; of other axes or sides it is about half
    assert read_mask(written, place).shape == (8, 12, 14)


def test_a_volume_of_its_own_size_is_the_same_voxel_by_voxel(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])[:, [2, 0, 1, 3]]
    voxels = rng.integers(0, 2, (7, 8, 9)).astype(np.uint8)
    path = tmp_path / "case.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    pixels, _, place = Reading().placed(decode(path))
    place = replace(place, path=path)
    said = torch.from_numpy(pixels[..., 0]).float()
    mask = in_file_space(torch.stack([1 - said, said]), place)
    found = nibabel.load(save_mask(tmp_path, "mask", mask, place))
    np.testing.assert_array_equal(np.asarray(found.dataobj), voxels)
    assert place.shown_spacing is not None
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", place), pixels[..., 0])


def test_a_picture_leaves_as_a_picture_whose_values_are_the_classes(tmp_path: Path) -> None:
    mask = np.arange(12, dtype=np.int16).reshape(3, 4) % 3
    place = Place.whole((3, 4))
    written = save_mask(tmp_path, "eye 1.jpg", mask, place)
    assert written.name == "eye 1.png"
    np.testing.assert_array_equal(read_mask(written, place), mask)
    with Image.open(written) as picture:
        assert picture.mode == "P"
        colors = picture.convert("RGB").getcolors()
        assert colors is not None
        assert len(colors) == 3


def test_outlines_of_prediction_and_truth() -> None:
    predicted, truth = np.zeros((200, 200), np.int64), torch.zeros(200, 200, dtype=torch.long)
    predicted[10:50, 10:50] = 1
    truth[100:150, 100:150] = 1
    picture = overlay(torch.full((1, 200, 200), 0.5), predicted, truth)
    assert picture.shape == (3, 200, 200)
    assert picture[:, 100, 120].tolist() == [1, 1, 1]
    assert picture[:, 10, 20].tolist() == pytest.approx([0, 114 / 255, 178 / 255])
    assert picture[:, 20, 20].tolist() == [0.5] * 3
    volume = overlay(torch.rand(1, 4, 20, 20), np.ones((4, 20, 20), np.int64), None)
    assert volume.shape == (3, 160, 160)
