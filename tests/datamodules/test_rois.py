"""Volumes brought to one spacing and cut down to a roi, on NIfTI files of a few voxels."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.reading import Reading
from holdfast.datamodules.records import text
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_picture

SIDES = (12, 10, 8)  # along x, y and z


def write_volume(
    path: Path, pixels: np.ndarray[Any, Any], spacing: tuple[float, float, float] = (1, 1, 1)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([*spacing, 1.0])), path)


def ramp() -> np.ndarray[Any, Any]:
    """A volume whose value tells the place: x + 100 y + 10000 z."""
    x, y, z = np.indices(SIDES)
    return (x + 100 * y + 10000 * z).astype(np.float32)


def box(*low: int, size: int = 3) -> np.ndarray[Any, Any]:
    """A mask of a cube."""
    mask = np.zeros(SIDES, np.uint8)
    mask[tuple(slice(start, start + size) for start in low)] = 2
    return mask


def test_a_nifti_file_tells_its_spacing_in_the_order_of_its_axes(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", ramp(), (0.5, 1, 3))
    decoded = decode(tmp_path / "a.nii.gz")
    assert decoded.pixels.shape == (8, 10, 12, 1)
    assert decoded.spacing == pytest.approx((3, 1, 0.5))


def test_resampling_keeps_values_where_they_are(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", ramp(), (2, 1, 1))
    pixels, _ = Reading(spacing=1.0).apply(decode(tmp_path / "a.nii.gz"))
    assert pixels.shape[:2] == (8, 10)
    assert pixels.shape[2] in (
        23,
        24,
    )  # 12 voxels of 2 mm, counted from centre to centre or from edge to edge
    steps = np.diff(pixels[3, 4, :, 0])[2:-2]
    assert steps == pytest.approx(np.full(len(steps), 0.5), abs=0.02)  # x grows by one in 2 mm
    picture = decode(write_picture(tmp_path / "a.png", grey()))
    with pytest.raises(Unreadable, match="tells no spacing"):
        Reading(spacing=1.0).apply(picture)


@pytest.mark.parametrize("margin", [0, 1, 50])
def test_a_volume_is_cut_down_to_its_mask(tmp_path: Path, margin: int) -> None:
    write_volume(tmp_path / "a.nii.gz", ramp())
    write_volume(tmp_path / "m.nii.gz", box(5, 4, 2))
    reading = Reading(around_roi=margin)
    pixels, _ = reading.apply(decode(tmp_path / "a.nii.gz"), decode(tmp_path / "m.nii.gz"))
    low = [max(0, start - margin) for start in (2, 4, 5)]
    high = [
        min(side, start + 3 + margin) for start, side in zip((2, 4, 5), (8, 10, 12), strict=True)
    ]
    expected = ramp().T[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
    assert np.array_equal(pixels[..., 0], expected)


def test_cut_after_resampling_then_to_one_size(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", ramp(), (1, 1, 2))
    write_volume(tmp_path / "m.nii.gz", box(5, 4, 2), (1, 1, 2))
    reading = Reading(size=(6, 3, 3), fit="crop", window="percentile", spacing=1.0, around_roi=0)
    pixels, limits = reading.apply(decode(tmp_path / "a.nii.gz"), decode(tmp_path / "m.nii.gz"))
    assert pixels.shape == (6, 3, 3, 1)
    middle = pixels[2:4, 1, 1, 0]
    assert middle.mean() == pytest.approx(6 + 100 * 5 + 10000 * 3, rel=0.1)
    assert limits is not None
    assert limits[0] < middle.mean() < limits[1]


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for name in ("none", "flat", "other", "lost"):
        write_volume(tmp_path / f"{name}.nii.gz", ramp())
    write_volume(tmp_path / "good.nii.gz", ramp())
    write_volume(tmp_path / "good_mask.nii.gz", box(5, 4, 2))
    write_volume(tmp_path / "flat_mask.nii.gz", np.zeros(SIDES, np.uint8))
    write_volume(tmp_path / "other_mask.nii.gz", np.ones((4, 4, 4), np.uint8))
    names = ["good", "none", "flat", "other", "lost"]
    masks = text("" if name == "none" else f"{name}_mask.nii.gz" for name in names)
    files = ImageFiles(
        tmp_path,
        text(f"{name}.nii.gz" for name in names),
        Reading(size=4, around_roi=0),
        rois=masks,
    )
    reasons = files.unreadable()
    assert list(reasons) == [1, 2, 3, 4]
    for reason, words in zip(
        reasons.values(),
        ("no roi", "marks nothing", "and its roi 4x4x4", "lost_mask.nii.gz, that"),
        strict=True,
    ):
        assert words in reason


def test_a_table_with_a_column_of_masks(tmp_path: Path) -> None:
    lines = ["path,label,roi"]
    for number in range(4):
        write_volume(tmp_path / f"{number}.nii.gz", ramp())
        write_volume(tmp_path / "masks" / f"{number}.nii.gz", box(number, 4, 2))
        lines.append(f"{number}.nii.gz,{'ab'[number % 2]},masks/{number}.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines))
    words: dict[str, Any] = {"path": str(table), "window": [0, 80000]}
    images = load_table(TableConfig(**words, around_roi=1, size=[5, 5, 5], fit="crop"), "target")
    assert images.batch([0, 3])["image"].shape == (2, 1, 5, 5, 5)
    assert images.metadata == {}
    with pytest.raises(
        InputError, match=r"0\.nii\.gz, which is 5x5x4 where others are 5x5x5: data\.size"
    ):  # the first's mask lies at the edge
        load_table(TableConfig(**words, around_roi=1), "target")
    table.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines))
    with pytest.raises(InputError, match=r"has no rois for data\.around_roi"):
        load_table(TableConfig(path=str(table), around_roi=0), "target")
    table.write_text("path,roi\n0.nii.gz,../outside.nii.gz\n")
    with pytest.raises(InputError, match="outside"):
        load_table(TableConfig(path=str(table), around_roi=0), "target")


@pytest.mark.parametrize(("option", "value"), [("spacing", 0.0), ("around_roi", -1)])
def test_values_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"data.{option}"):
        TableConfig(**{option: value})
