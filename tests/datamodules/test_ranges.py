"""Which raw values become 0 and 1 is judged over all images, and refused where they do not tell."""

from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from holdfast.datamodules import load_images
from holdfast.datamodules.folder import FolderConfig
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.npz import NpzConfig, load_npz
from holdfast.datamodules.ranges import value_range
from holdfast.datamodules.trainable import check_training_set
from holdfast.tta.errors import InputError
from tests.datamodules.test_files import grey, write_dicom

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


def target(folder: Path, **options: Any) -> ImageSet:
    return load_images("folder", FolderConfig(target=str(folder), **options), "target")


def write_kinds(folder: Path, order: tuple[str, ...]) -> None:
    """An image of each kind, in that order of the directory."""
    pixels = {
        "png": grey(8),
        "ct": (grey(12).astype(np.int16) - 1024),
        "cr": grey(10),
        "mr": grey(10).astype(np.int16) - 300,
        "float": (grey(8) / 255 * 0.011).astype(np.float32),
    }
    folder.mkdir()
    for place, kind in enumerate(order):
        name = folder / f"{place}-{kind}"
        if kind in ("png", "float"):
            suffix = ".png" if kind == "png" else ".tif"
            Image.fromarray(pixels[kind]).save(name.with_suffix(suffix))
            continue
        more: dict[str, Any] = {"Modality": kind.upper()}
        if kind == "ct":
            more |= {"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "HU"}
        bits = 10 if kind == "cr" else 16
        write_dicom(name.with_suffix(".dcm"), pixels[kind], bits=bits, **more)


@pytest.mark.parametrize("kinds", [("png", "ct"), ("cr", "mr"), ("png", "float"), ("cr", "ct")])
def test_kinds_that_share_no_range_are_refused_in_any_order(
    tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    messages = set()
    for order in permutations((*kinds, kinds[0])):
        folder = tmp_path / f"{len(messages)}-{len(list(tmp_path.iterdir()))}"
        write_kinds(folder, order)
        with pytest.raises(InputError, match=r"cannot share a range: 2 .*, 1 ") as caught:
            target(folder)
        for kind in kinds:
            assert f"-{kind}." in str(caught.value)
        messages.add(str(caught.value))
    folder = tmp_path / "percentile"
    write_kinds(folder, kinds)
    scaled = target(folder, window="percentile").batch([0, 1])["image"]
    assert scaled.amin((1, 2, 3)).tolist() == [0, 0]
    assert scaled.amax((1, 2, 3)).tolist() == [1, 1]


def test_values_in_a_unit_fit_no_window_of_pictures_but_a_range_of_their_own(
    tmp_path: Path,
) -> None:
    write_kinds(tmp_path / "a", ("png", "ct"))
    with pytest.raises(InputError, match=r"1 of unsigned numbers .*, 1 in HU"):
        target(tmp_path / "a", window=[-1000.0, 400.0])
    images = target(tmp_path / "a", range=[-1000.0, 400.0]).batch([0, 1])["image"]
    np.testing.assert_allclose(images[0, 0], grey(8) / 255, atol=1e-6)
    ct = grey(12).astype(int) - 1024
    np.testing.assert_allclose(images[1, 0], ((ct + 1000) / 1400).clip(0, 1), atol=1e-6)
    write_kinds(tmp_path / "b", ("mr", "cr"))  # the user's word on raw values holds for both
    assert len(target(tmp_path / "b", window=[-300.0, 723.0])) == 2


def floats(count: int = 12, high: float = 1.0) -> Array:
    return (RNG.uniform(0, high, (count, 40, 40))).astype(np.float32)


def test_an_extreme_pixel_a_blank_image_and_an_overshoot_change_nothing() -> None:
    images = floats()
    assert value_range(images) == (0, 1)
    images[3, 5, 5] = 1.0001
    images[4, 7, 7] = 40.0
    images[5, 8, 8] = np.nan
    images[6, 0, 0] = np.inf
    images[0] = 0  # blank
    images[1] *= 1.01
    for source in (None, (0.0, 1.0), (0.0, 255.0)):
        assert value_range(images, source) == (0, 1)
    assert value_range(images * 255, (0.0, 255.0)) == (0, 255)
    assert value_range(np.zeros((2, 4, 4), np.uint8)) == (0, 255)
    assert value_range(np.zeros((2, 4, 4), np.uint16)) == (0, 65535)
    assert value_range(np.zeros((2, 4, 4), np.float32), (0.0, 255.0)) == (0, 1)


@pytest.mark.parametrize(
    ("images", "source", "message"),
    [
        (floats(high=255), None, r"from \d.* to 25.*data.range"),
        (
            (floats(high=255)).astype(np.int64),
            None,
            r"int64 numbers from 0 to 254.*likely \[0,255\]",
        ),
        (
            floats() * 4 - 2,
            None,
            r"from -2 to 2\.?|from -1\.\d+ to 1\.\d+.*data.range",
        ),  # standardised
        (floats(high=0.011), None, "data.range"),
        (floats(high=255), (0.0, 1.0), r"source's range is 0 to 1.*data.range"),
        (floats(high=4000), (0.0, 255.0), "source's range is 0 to 255"),
        (floats(high=800), (0.0, 65535.0), "source's range is 0 to 65535"),  # 1 % of it
        (floats(high=3), (0.0, 255.0), "data.range"),
        (floats() * 1400 - 1000, (0.0, 255.0), "data.range"),
        (np.concatenate([floats(), floats(high=255)]), None, "12 of 24 .*in 0 to 1 .*image 0.*25"),
        (
            np.concatenate([floats(200), floats(1, 255)]),
            None,
            "200 of 201 .* 1 up to 25.*image 200",
        ),
    ],
)
def test_what_does_not_tell_is_refused(
    images: Array, source: tuple[float, float] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        value_range(images, source)
    assert value_range(images, source, (0.0, 4000.0)) == (0, 4000)


def test_images_of_few_bright_pixels_are_not_taken_for_others() -> None:
    sparse = np.zeros((5, 40, 40), np.float32)
    sparse[:, 3, 3:6] = 200.0
    with pytest.raises(InputError, match="from 0 to 200"):
        value_range(sparse)


def test_a_range_is_an_option_of_arrays(tmp_path: Path) -> None:
    images = floats(30, high=255)
    images[:, 0, 0] = 255
    arrays = {"images": images, "labels": np.arange(30) % 2, "split": np.array(["train"] * 30)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=r"data\.range=\[LOW,HIGH\]"):
        load_npz(NpzConfig(path=str(tmp_path / "a.npz")), "train")
    given = load_npz(NpzConfig(path=str(tmp_path / "a.npz"), range=[0.0, 255.0]), "train")
    assert given[0]["image"].max() == 1
    with pytest.raises(InputError, match=r"data\.range=\[3.*LOW below HIGH"):
        load_npz(NpzConfig(path=str(tmp_path / "a.npz"), range=[3.0, 1.0]), "train")


def test_float_files_are_judged_together(tmp_path: Path) -> None:
    for place in range(6):
        image = floats(1)[0]
        image[2, 2] = 1.01 if place == 0 else 0.5
        Image.fromarray(image * (place != 1)).save(tmp_path / f"{place}.tif")  # the second is blank
    images = target(tmp_path)
    assert value_range(images.images, (0.0, 255.0)) == (0, 1)
    assert images.images.facts.blank == 1
    nibabel.save(nibabel.Nifti1Image(floats(1)[0] * 300, np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(InputError, match=r"5 of 6 images .*0\.tif.* 1 up to .*x\.nii"):
        value_range(target(tmp_path).images, (0.0, 255.0))


def test_facts(tmp_path: Path) -> None:
    for place in range(5):
        dark = grey(8, (20, 30)).astype(np.uint16) * 3
        Image.fromarray(dark).save(tmp_path / f"{place}.tif")
    facts = target(tmp_path).images.facts
    assert (facts.images, facts.kinds, facts.limits) == (5, {"TIFF uint16": 5}, (0, 65535))
    assert facts.use == pytest.approx(0.0115, abs=5e-4)
    (note,) = facts.notes
    assert note.startswith("5 TIFF uint16 use 1.1% of the range 0 to 65535")
    assert "data.window=[0,1023]" in note
    assert facts.pixels(0, 1).startswith("5 TIFF uint16: 0 to 65535 becomes 0 to 1")
    assert target(tmp_path, window=[0.0, 1023.0]).images.facts.notes == ()
    unchecked = target(tmp_path, check=False).images.facts
    assert (unchecked.images, unchecked.notes) == (5, (note,))


def test_an_unchecked_file_of_another_scale_is_no_image_of_the_set(tmp_path: Path) -> None:
    for place in range(40):
        Image.fromarray(grey(8)).save(tmp_path / f"{place:02d}.png")
    more = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}
    write_dicom(tmp_path / "07.dcm", grey(12), bits=12, **more)
    images = target(tmp_path, check=False)
    lost: dict[int, str] = {}
    images.batch(range(41), lost)
    assert lost == {7: "has values in HU, unlike the files that were looked at"}
    with pytest.raises(InputError, match="cannot share a range"):
        target(tmp_path)


def test_broken_files_are_known_from_the_check(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for place in range(10):
            pixels = floats(1)[0]
            pixels[3, 3] = np.inf if (label, place) == ("b", 4) else 0.5
            Image.fromarray(pixels).save(tmp_path / label / f"{place}.tif")
    config = FolderConfig(root=str(tmp_path), shares=[0.8, 0.1, 0.1])
    sets = [load_images("folder", config, split) for split in ("train", "val", "test")]
    broken = [name for images in sets for name in images.ids[images.images.broken()].tolist()]
    assert broken == ["b/4.tif"]
    train = next(images for images in sets if "b/4.tif" in images.ids)
    with pytest.raises(InputError, match=r"1 training images hold NaN or infinite.*b/4\.tif"):
        check_training_set(train)


def test_a_file_that_is_left_out_does_not_speak_for_the_others(tmp_path: Path) -> None:
    more = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}
    for place in range(4):
        write_dicom(tmp_path / f"{place}.dcm", grey(12), bits=12, **more)
    Image.fromarray(grey(8, (3, 3))).save(tmp_path / "a.png")  # the odd one by its sides
    images = target(tmp_path, on_error="skip", window=[-1000.0, 400.0], cache=0.0)
    assert images.skipped.keys() == {"a.png"}
    assert images.batch(range(4))["image"].shape == (4, 1, 6, 9)
    assert images.images.facts.kinds == {"DICOM CT int16": 4}


def test_an_option_without_effect_is_said(tmp_path: Path) -> None:
    Image.fromarray(grey(8)).save(tmp_path / "a.png")
    for options, why in (
        ({}, "all files say what they span"),
        ({"window": [0.0, 100.0]}, "data.window holds for all"),
    ):
        notes = target(tmp_path, range=[0.0, 99.0], **options).images.facts.notes
        assert notes == (f"data.range is not used: {why}",)
    (tmp_path / "b").mkdir()
    write_dicom(
        tmp_path / "b" / "a.dcm",
        grey(12),
        bits=12,
        Modality="CT",
        RescaleSlope="1",
        RescaleIntercept="-1024",
    )
    images = target(tmp_path / "b", range=[-1000.0, 400.0])
    assert (images.images.facts.notes, images.images.facts.limits) == ((), (-1000, 400))
    with pytest.raises(InputError, match=r"hold HU.*data\.window=\[LOW,HIGH\], such as"):
        value_range(target(tmp_path / "b").images, (0.0, 255.0))
