"""Masks in files: beside their images in folders and tables, in every geometry, and bad ones."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from holdfast.datamodules import load_images
from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.summary import understood
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.datamodules.test_dicom_volumes import _SLICES, volume, write_segmentation, write_series
from tests.datamodules.test_files import write_picture
from tests.datamodules.test_rois import write_volume

Pixels = np.ndarray[Any, Any]
SIDES = (16, 24)


def discs(seed: int, sides: tuple[int, ...] = SIDES) -> Pixels:
    """A mask of a disc (1) with a cup (2) in it, somewhere."""
    rng = np.random.default_rng(seed)
    axes = np.indices(sides).astype(float)
    middle = [rng.uniform(0.35, 0.65) * side for side in sides]
    away = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(axes, middle, strict=True)))
    return ((away < 6).astype(np.uint8) + (away < 3)).astype(np.uint8)


def write_pairs(root: Path, count: int = 6, values: tuple[int, ...] = (0, 1, 2)) -> None:
    """Images whose grey is their class, 0, 100 or 200, and masks with these values."""
    for number in range(count):
        mask = discs(number)
        write_picture(root / "images" / f"{number}.png", mask * 100)
        table = np.array(values, np.uint8)
        write_picture(root / "masks" / f"{number}_mask.png", table[mask])


def masks_of(images: ImageSet, row: int = 0) -> Pixels:
    return np.asarray(images[row]["mask"])


def load(root: Path, split: Any = "target", **more: Any) -> ImageSet:
    return load_folder(FolderConfig(root=str(root), **more), split)


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    images = load(tmp_path)
    assert (images.task, images.class_names) == ("segmentation", ("background", "1", "2"))
    for row in range(6):
        item = images[row]
        assert torch.equal(item["mask"], (item["image"][0] * 255 / 100).round().long())
    batch = images.batch([4, 1])
    assert torch.equal(batch["mask"][0], images[4]["mask"])
    part = images.subset(np.array([4]))
    assert torch.equal(part[0]["mask"], images[4]["mask"])
    assert images.target.shares.sum(1) == pytest.approx(np.ones(6))
    assert images.target.shares[2, 2] == pytest.approx((discs(2) == 2).mean())
    train = load(tmp_path, "train", shares=[0.5, 0.25, 0.25])
    assert train.labelled
    assert understood({"train": train})[0].startswith("classes: 3 (background: ")


@pytest.mark.parametrize(
    ("header", "again"),
    [
        ("path,mask", "masks/1_mask.png"),
        ("path,mask", ""),
        ("path,mask:disc", "masks/1_mask.png"),
    ],
)
def test_an_image_listed_with_two_masks_is_refused(tmp_path: Path, header: str, again: str) -> None:
    write_pairs(tmp_path, 2)
    table, first = tmp_path / "t.csv", "images/0.png,masks/0_mask.png"
    config = TableConfig(path=str(table))
    table.write_text(f"{header}\n{first}\nimages/0.png,{again}\n")
    said = f"masked by {again}" if again else "without a mask"
    with pytest.raises(InputError, match=rf"as masked by masks/0_mask\.png and as {said}: keep"):
        load_table(config, "target")
    table.write_text(f"{header}\n{first}\nimages/0.png,./masks/0_mask.png\n")
    assert len(load_table(config, "target")) == 2


@pytest.mark.parametrize("layout", ["above", "below"])
def test_splits_are_folders_above_or_below(tmp_path: Path, layout: str) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            folder = (split, kind) if layout == "above" else (kind, split)
            for number in range(2):
                write_picture(tmp_path.joinpath(*folder) / f"{number}.png", discs(number))
    for split in ("train", "val"):
        images = load(tmp_path, split)
        assert len(images) == 2
        assert np.array_equal(masks_of(images, 1), discs(1))


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for number in range(3):
        mask = discs(number)
        write_picture(tmp_path / "images" / f"{number}.png", mask * 100)
        write_picture(tmp_path / "masks" / "a_disc" / f"{number}.png", (mask > 0) * np.uint8(255))
        if number:  # the first has no cup, and no file for it
            write_picture(tmp_path / "masks" / "cup" / f"{number}.png", (mask > 1) * np.uint8(7))
    images = load(tmp_path)
    assert images.class_names == ("background", "a_disc", "cup")
    assert np.array_equal(masks_of(images, 0), np.minimum(discs(0), 1))
    assert np.array_equal(masks_of(images, 2), discs(2))


def test_values_are_named_and_what_is_unlisted_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, values=(255, 128, 0))
    with pytest.raises(InputError, match=r"hold the values 0, 128, 255: .* data\.labels=\{0: NAME"):
        load(tmp_path)
    images = load(tmp_path, labels={0: "cup", 128: "disc", 255: None})
    assert images.class_names == ("background", "cup", "disc")
    assert np.array_equal(masks_of(images), np.array([0, 2, 1])[discs(0)])
    ignored = load(tmp_path, labels={0: "cup", 128: "disc", 255: "ignore"})
    assert ignored.class_names == ("cup", "disc")
    assert np.array_equal(masks_of(ignored) == UNLABELLED, discs(0) == 0)
    with pytest.raises(
        InputError, match=r"6 of 6 files .* the value\(s\) 128, and 0, 255 are known"
    ):
        load(tmp_path, labels={0: "cup", 255: None})
    with pytest.raises(InputError, match=r"the value\(s\) 0, and 128, 255 are known"):
        load(tmp_path, labels={128: "disc", 255: None})
    with pytest.raises(InputError, match="fewer than two classes"):
        FolderConfig(labels={0: None})
    with pytest.raises(InputError, match="must map the values"):
        FolderConfig(labels="cup")
    assert values_of({1: "liver"}).codes == {0: 0, 1: 1}


@pytest.mark.parametrize("high", [1, 255])
def test_black_and_white_masks_are_background_and_foreground(tmp_path: Path, high: int) -> None:
    write_pairs(tmp_path, values=(0, high, high))
    images = load(tmp_path)
    assert images.class_names == ("background", "foreground")
    assert np.array_equal(masks_of(images), discs(0) > 0)


def test_palettes_are_numbers_and_colours_can_be_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    for number in range(2):
        picture = Image.fromarray(discs(number), "P")
        picture.putpalette(colours.ravel().tolist())
        picture.save(tmp_path / "masks" / f"{number}_mask.png")
    assert np.array_equal(masks_of(load(tmp_path)), discs(0))
    for number in range(2):
        write_picture(tmp_path / "masks" / f"{number}_mask.png", colours[discs(number)])
    with pytest.raises(InputError, match="a mask in colours"):
        load(tmp_path)
    named = {"#000000": None, "#ff0000": "disc", "#00FF00": "cup"}
    images = load(tmp_path, labels=named)
    assert np.array_equal(masks_of(images), discs(0))


def test_a_table_names_masks_or_a_file_for_each_class(tmp_path: Path) -> None:
    lines = {"one": ["path,split,mask"], "each": ["path,split,mask:disc,mask:cup"]}
    for number, split in enumerate(["train", "train", "val", "test", ""]):
        mask = discs(number)
        write_picture(tmp_path / f"{number}.png", mask * 100)
        write_picture(tmp_path / f"m{number}.png", mask)
        write_picture(tmp_path / f"d{number}.png", (mask > 0).astype(np.uint8))
        write_picture(tmp_path / f"c{number}.png", (mask > 1).astype(np.uint8))
        known = number != 1
        lines["one"].append(f"{number}.png,{split}," + f"m{number}.png" * known)
        lines["each"].append(
            f"{number}.png,{split}," + (f"d{number}.png,c{number}.png" if known else ",")
        )
    for name, written in lines.items():
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join(written))
        images = load_table(TableConfig(path=str(table)), "train")
        assert images.target.known.tolist() == [True, False]
        assert np.array_equal(masks_of(images), discs(0))
        assert (masks_of(images, 1) == UNLABELLED).all()
        assert images.class_names[-1] == ("2" if name == "one" else "cup")
        assert load_table(TableConfig(path=str(table)), "target").task == "segmentation"
    table.write_text("path,label,mask\n0.png,a,m0.png\n")
    with pytest.raises(InputError, match=r"data\.task=single or data\.task=segmentation"):
        load_table(TableConfig(path=str(table)), "target")
    assert load_table(TableConfig(path=str(table), task="single"), "target").task == "single"
    with pytest.raises(InputError, match="is called roi"):
        load_table(TableConfig(path=str(table), task="single", around_roi=0), "target")
    with pytest.raises(InputError, match=r"data\.around_mask is called data\.around_roi"):
        TableConfig(around_mask=0)


def one_pair(folder: Path, mask: Pixels | None, name: str = "m.png") -> str:
    """A table of four good pairs and an odd one."""
    lines = ["path,mask"]
    for number in range(4):
        write_picture(folder / f"{number}.png", discs(number) * 100)
        write_picture(folder / f"m{number}.png", discs(number))
        lines.append(f"{number}.png,m{number}.png")
    write_picture(folder / "odd.png", discs(9) * 100)
    if mask is not None:
        write_picture(folder / name, mask)
    lines.append(f"odd.png,{name}")
    (folder / "table.csv").write_text("\n".join(lines))
    return str(folder / "table.csv")


BAD: dict[str, tuple[Pixels | None, str]] = {
    "other sides": (np.zeros((8, 8), np.uint8), r"is 16x24, and has a mask, m\.png, of 8x8"),
    "a value outside": (discs(9) * np.uint8(3), r"the value\(s\) 3, 6, and 0, 1, 2 are known"),
    "missing": (None, r"has a mask, m\.png, that does not exist"),
    "colours": (np.array([[0, 0, 9], [9, 0, 0], [1, 2, 3]], np.uint8)[discs(9)], "in colours"),
    "an overlay": (
        np.random.default_rng(0).integers(0, 256, (*SIDES, 3), dtype=np.uint8),
        r"a picture of \d+ colours where its mask should be",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mask_that_is_none_is_named_and_can_be_skipped(tmp_path: Path, name: str) -> None:
    mask, message = BAD[name]
    table = one_pair(tmp_path, mask)
    labels = {1: "disc", 2: "cup"}
    with pytest.raises(InputError, match=message) as error:
        load_table(TableConfig(path=table, labels=labels), "target")
    assert "odd.png" in str(error.value)
    images = load_table(TableConfig(path=table, labels=labels, on_error="skip"), "target")
    assert len(images) == 4
    assert list(images.skipped) == ["odd.png"]


def test_an_unreadable_mask_of_a_stream_is_lost(tmp_path: Path) -> None:
    images = load_table(TableConfig(path=one_pair(tmp_path, discs(9)), cache=0), "target")
    (tmp_path / "m.png").unlink()
    images.images._patience.left = 0  # type: ignore[union-attr]
    lost: dict[int, str] = {}
    batch = images.batch([3, 4], lost)
    assert list(lost) == [1]
    assert (batch["mask"][1] == UNLABELLED).all()
    with pytest.raises(InputError, match=r"odd\.png has a mask, m\.png, that does not exist"):
        images.batch([3, 4])


def test_jpeg_masks_fractions_and_empty_masks_are_told_of(tmp_path: Path) -> None:
    picture = discs(9) * np.uint8(127)
    (tmp_path / "jpeg").mkdir()
    table = one_pair(tmp_path / "jpeg", picture, "m.jpg")
    with pytest.raises(InputError, match="JPEG changes values at edges"):
        load_table(TableConfig(path=table), "target")
    write_volume(tmp_path / "v.nii.gz", np.ones((6, 6, 6), np.float32))
    write_volume(tmp_path / "m.nii.gz", np.full((6, 6, 6), 0.3, np.float32))
    (tmp_path / "t.csv").write_text("path,mask\nv.nii.gz,m.nii.gz\n")
    with pytest.raises(InputError, match=r"a mask of fractions \(as 0\.3\)"):
        load_table(TableConfig(path=str(tmp_path / "t.csv"), window="percentile"), "target")
    (tmp_path / "empty").mkdir()
    table = one_pair(tmp_path / "empty", np.zeros(SIDES, np.uint8))
    notes = load_table(TableConfig(path=table), "target").notes
    assert "1 of 5 masks are empty: background alone" in notes


def test_what_has_no_partner_is_told_of(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "masks" / "2_mask.png").unlink()
    (tmp_path / "images" / "3.png").unlink()
    images = load(tmp_path)
    assert images.notes[:2] == (
        "1 images have no mask, the first images/2.png",
        "1 masks have no image, the first masks/3_mask.png",
    )
    assert images.target.known.tolist() == [True, True, False, True, True]
    for file in (tmp_path / "masks").iterdir():
        file.rename(tmp_path / "masks" / f"other{file.name}")
    with pytest.raises(InputError, match="no mask is called as an image is"):
        load(tmp_path)


@pytest.mark.parametrize("fit", ["stretch", "cover", "pad", "crop"])
@pytest.mark.parametrize("size", [[12, 20], [24, 18]])
def test_masks_come_as_their_images_do_and_go_back(
    tmp_path: Path, fit: Any, size: list[int]
) -> None:
    write_pairs(tmp_path)
    images = load(tmp_path, size=size, fit=fit)
    agreed, back = [], []
    for row in range(6):
        item, place = images[row], images.place(row)
        assert item["mask"].shape == tuple(size)
        shown = (item["image"][0] * 255 / 100).round().long()
        known = item["mask"] != UNLABELLED
        agreed.append((shown == item["mask"])[known].float().mean())
        returned = place.back(item["mask"].clamp(min=0))
        assert returned.shape == SIDES
        lost = place.back(torch.ones(size), outside=0) == 0
        true = torch.from_numpy(discs(row)).long()
        back.append((returned == true)[~lost].float().mean())
        assert (fit in ("crop", "cover")) or not lost.any()
    assert min(agreed) > 0.8  # an image is smoothed at edges, a mask is not
    assert min(back) > 0.9
    if fit == "pad":
        assert (images[0]["mask"] == UNLABELLED).any()
    if fit == "crop":
        assert min(agreed) == min(back) == 1


def test_volumes_of_several_spacings_share_one_and_go_back(tmp_path: Path) -> None:
    lines = ["path,mask"]
    for number, spacing in enumerate([(1, 1, 1), (1, 2, 0.5)]):
        mask = discs(number, (14, 16, 20))
        write_volume(tmp_path / f"{number}.nii.gz", mask * np.uint8(100), spacing)
        write_volume(tmp_path / f"m{number}.nii.gz", mask, spacing)
        lines.append(f"{number}.nii.gz,m{number}.nii.gz")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    apart = load_table(TableConfig(path=str(tmp_path / "t.csv")), "target")
    assert any("pixels are of several sizes" in note for note in apart.notes)
    images = load_table(TableConfig(path=str(tmp_path / "t.csv"), spacing=1.0), "target")
    assert images[1]["mask"].shape == (10, 31, 14)
    with pytest.raises(InputError, match=r"stream\.batch_size=1"):
        images.batch([0, 1])
    for row in range(2):
        place = images.place(row)
        assert place.sides == (20, 16, 14)
        assert place.shown_spacing == pytest.approx((1, 1, 1))
        back = place.back(images[row]["mask"])
        assert (back.numpy() == discs(row, (14, 16, 20)).T).mean() > 0.95
        smooth = place.back(
            torch.nn.functional.one_hot(images[row]["mask"], 3).movedim(-1, 0).float(), linear=True
        )
        assert smooth.sum(0) == pytest.approx(1)
        assert (smooth.argmax(0).numpy() == discs(row, (14, 16, 20)).T).mean() > 0.95


@pytest.mark.parametrize(
    ("spacing", "shape", "message"),
    [
        ((1, 1, 2), (6, 6, 6), "a mask, m.nii.gz, of another spacing, 2 x 1 x 1 mm"),
        ((1, 1, 1), (6, 6, 5), "is 6x6x6, and has a mask, m.nii.gz, of 5x6x6"),
    ],
)
def test_masks_of_another_space_are_refused(
    tmp_path: Path, spacing: Any, shape: tuple[int, ...], message: str
) -> None:
    write_volume(tmp_path / "v.nii.gz", np.ones((6, 6, 6), np.uint8))
    write_volume(tmp_path / "m.nii.gz", np.ones(shape, np.uint8), spacing)
    (tmp_path / "t.csv").write_text("path,mask\nv.nii.gz,m.nii.gz\n")
    with pytest.raises(InputError, match=message):
        load_table(TableConfig(path=str(tmp_path / "t.csv")), "target")


def test_masks_that_lie_elsewhere_or_have_four_axes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,mask\nv.nii.gz,m.nii.gz\n")
    write_volume(tmp_path / "v.nii.gz", np.ones((6, 6, 6), np.uint8))
    affine = np.eye(4)
    affine[0, 3] = 3
    mask = np.ones((6, 6, 6), np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="that lies 3 mm beside it"):
        load_table(TableConfig(path=str(tmp_path / "t.csv")), "target")
    channels = np.zeros((6, 6, 6, 2), np.uint8)
    channels[..., 1] = 1
    nibabel.save(nibabel.Nifti1Image(channels, np.eye(4)), tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="a mask of 2 channels"):
        load_table(TableConfig(path=str(tmp_path / "t.csv")), "target")
    series = nibabel.Nifti1Image(np.zeros((6, 6, 6, 9), np.uint8), np.eye(4))
    nibabel.save(series, tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="is a time series of 9 volumes"):
        load_table(TableConfig(path=str(tmp_path / "t.csv")), "target")


def test_a_mask_is_cut_down_to_the_roi_of_its_image(tmp_path: Path) -> None:
    mask = discs(0, (14, 16, 20))
    roi = np.zeros_like(mask)
    roi[3:11, 4:12, 5:15] = 1
    for name, pixels in {"v": mask * np.uint8(100), "m": mask, "r": roi}.items():
        write_volume(tmp_path / f"{name}.nii.gz", pixels)
    (tmp_path / "t.csv").write_text("path,mask,roi\nv.nii.gz,m.nii.gz,r.nii.gz\n")
    images = load_table(TableConfig(path=str(tmp_path / "t.csv"), around_roi=1), "target")
    box = (slice(2, 12), slice(3, 13), slice(4, 16))
    assert np.array_equal(masks_of(images), mask[box].T)
    back = images.place(0).back(images[0]["mask"]).numpy()
    outside = mask.copy()
    outside[box] = 0
    assert np.array_equal(back, (mask - outside).T)


def test_a_dicom_series_has_its_segmentation(tmp_path: Path) -> None:
    slices = volume(_SLICES, 6, 16)
    write_series(tmp_path / "ct", slices)
    expected = write_segmentation(tmp_path / "seg.dcm")[:, ::-1, ::-1]
    (tmp_path / "t.csv").write_text("path,mask\nct,seg.dcm\n")
    images = load_table(TableConfig(path=str(tmp_path / "t.csv"), window=[0, 4096]), "target")
    assert np.array_equal(masks_of(images), expected)
    assert images.place(0).affine is not None


def test_what_a_set_of_masks_is_can_be_asked_for(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    plain = load(tmp_path / "images", task="segmentation")
    assert plain.task == "segmentation"
    assert not plain.labelled
    assert load_images("folder", FolderConfig(root=str(tmp_path)), "target").task == "segmentation"
