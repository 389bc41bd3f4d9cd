"""Image files of every kind: what is read is what was written."""

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import DATA_ROOT
from torch.utils.data import DataLoader

from holdfast.datamodules import load_images
from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.folder import FolderConfig
from holdfast.datamodules.reading import Reading, fitted
from holdfast.datamodules.records import text
from holdfast.tta.errors import InputError
from tests.datamodules.dicoms import write_dicom


def grey(bits: int = 8, shape: tuple[int, ...] = (6, 9)) -> np.ndarray[Any, Any]:
    return (
        np.random.default_rng(bits)
        .integers(0, 2**bits, shape)
        .astype(np.uint8 if bits <= 8 else np.uint16)
    )


def write_picture(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def files(folder: Path, *names: str, cache: float = 0.0, **reading: Any) -> ImageFiles:
    return ImageFiles(folder, text(names), Reading(**reading), cache)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
def test_pictures_keep_their_values(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    pixels = grey(8, shape)
    decoded = decode(write_picture(tmp_path / f"image.{suffix}", pixels))
    np.testing.assert_array_equal(decoded.pixels, pixels.reshape(6, 9, -1))
    assert decoded.span == (0, 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    pixels = grey(16)
    write_picture(tmp_path / f"image.{suffix}", pixels)
    images = files(tmp_path, f"image.{suffix}")
    assert images.dtype == np.uint16
    scaled = images.scaled([0], (0, 1))
    np.testing.assert_array_equal((scaled[0, 0].double() * 65535).round().numpy(), pixels)


def test_the_byte_order_of_a_file_changes_nothing(tmp_path: Path) -> None:
    pixels = grey(16)
    image = Image.new("I;16B", (9, 6))
    image.frombytes(pixels.astype(">u2").tobytes())
    image.save(tmp_path / "image.tif")
    swapped = nibabel.Nifti1Image(
        pixels.T.astype(">u2"), np.eye(4), nibabel.Nifti1Header(endianness=">")
    )
    swapped.set_data_dtype(">u2")
    nibabel.save(swapped, tmp_path / "image.nii")
    for name in ("image.tif", "image.nii"):
        decoded = decode(tmp_path / name)
        np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)
        assert decoded.span == (0, 65535)
        assert files(tmp_path, name, size=4).scaled([0], (0, 1)).shape == (1, 1, 4, 4)


def test_nifti_is_turned_to_one_orientation(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ras.nii.gz")
    mirrored = nibabel.Nifti1Image(
        volume[::-1], np.diag([-1.0, 1, 1, 1])
    )  # the same head, stored from right to left
    nibabel.save(mirrored, tmp_path / "las.nii")
    for name in ("ras.nii.gz", "las.nii"):
        np.testing.assert_array_equal(
            decode(tmp_path / name).pixels[..., 0], volume.transpose(2, 1, 0)
        )
    nibabel.save(nibabel.Nifti1Image(grey(16, (5, 6, 1)), np.eye(4)), tmp_path / "plane.nii")
    assert decode(tmp_path / "plane.nii").pixels.shape == (6, 5, 1)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.dcm").write_text("not an image")
    (tmp_path / "text.nii").write_text("not an image")
    whole = write_picture(tmp_path / "whole.png", grey(8, (64, 64))).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    pages = [Image.fromarray(grey(8)) for _ in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for name, reason in (
        ("absent.png", "does not exist"),
        ("empty.png", "is empty"),
        ("text.png", "is no image, or damaged"),
        ("text.dcm", "is no DICOM file"),
        ("text.nii", "is no NIfTI file, or damaged"),
        ("cut.png", "truncated"),
        ("pages.tif", "has 3 pages"),
    ):
        with pytest.raises(Unreadable, match=reason):
            decode(tmp_path / name)


def test_windows(tmp_path: Path) -> None:
    pixels = (np.arange(54).reshape(6, 9) * 10).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", pixels, bits=12, WindowCenter="200", WindowWidth="200")
    raw = torch.from_numpy(pixels.astype(np.float32))
    for window, low, high in ((None, 0, 4095), ((50.0, 150.0), 50, 150), ("file", 100, 299)):
        shown = files(tmp_path, "a.dcm", window=window).scaled([0], (0, 1))[0, 0]
        torch.testing.assert_close(shown, ((raw - low) / (high - low)).clamp(0, 1))
    low, high = np.percentile(pixels, (0.5, 99.5))
    shown = files(tmp_path, "a.dcm", window="percentile").scaled([0], (0, 1))[0, 0]
    torch.testing.assert_close(shown, ((raw - low) / (high - low)).clamp(0, 1))


def test_fits() -> None:
    wide = np.zeros((4, 8, 1), np.uint8)
    wide[:, 2:6] = 200
    assert (fitted(wide, (4, 4), "cover") == 200).all()
    assert (fitted(wide, (4, 4), "crop") == 200).all()
    padded = fitted(wide, (4, 4), "pad")[..., 0]
    assert padded[0].max() == padded[3].max() == 0
    assert padded[1:3].max() > 150
    assert fitted(wide, (2, 2), "stretch").shape == (2, 2, 1)
    assert fitted(wide, (6, 10), "crop")[0].max() == 0
    deep = np.full((4, 6, 8, 1), 300, np.uint16)
    for size in ((2, 3, 4), (8, 8, 8)):
        resized = fitted(deep, size, "stretch")
        assert (resized.dtype, resized.shape) == (np.uint16, (*size, 1))
        assert (resized == 300).all()


def test_channels_and_sizes_change_only_when_asked(tmp_path: Path) -> None:
    write_picture(tmp_path / "grey.png", grey(8))
    write_picture(tmp_path / "colour.png", np.full((6, 9, 3), (10, 20, 30), np.uint8))
    write_picture(tmp_path / "large.png", grey(8, (12, 9)))
    names = ("grey.png", "colour.png", "large.png")
    reasons = files(tmp_path, *names).unreadable()
    assert set(reasons) == {1, 2}
    assert "data.channels" in reasons[1]
    assert "data.size" in reasons[2]
    images = files(tmp_path, *names, channels=1, size=(6, 9))
    assert images.unreadable() == {}
    assert images.scaled([1], (0, 1)).mean() == pytest.approx(
        round(0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 255
    )
    assert files(tmp_path, *names, channels=3, size=8).scaled([0, 1, 2], (0, 1)).shape == (
        3,
        3,
        8,
        8,
    )


def test_where_the_first_is_the_odd_one_it_is_left_out(tmp_path: Path) -> None:
    write_picture(tmp_path / "a" / "0.png", grey(8, (7, 7)))
    for index in range(1, 6):
        write_picture(tmp_path / "a" / f"{index}.png", grey(8))
    options = FolderConfig(target=str(tmp_path), on_error="skip")
    images = load_images("folder", options, "target")
    assert (len(images), images.size) == (5, (6, 9))
    assert images.skipped.keys() == {"a/0.png"}
    assert "is 7x7 where others are 6x9" in images.skipped["a/0.png"]
    assert images.batch(range(5))["image"].shape == (5, 1, 6, 9)
    with pytest.raises(InputError, match=r"1 of 6 files cannot be used, the first is a/0\.png"):
        load_images("folder", FolderConfig(target=str(tmp_path)), "target")


@pytest.mark.parametrize("way", ["link", "link to a folder", "link in a series"])
def test_nothing_outside_the_root_is_read(tmp_path: Path, way: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "rootless"
    write_picture(outside / "secret.png", grey())
    write_picture(root / "image.png", grey())
    if way == "link":
        os.symlink(outside / "secret.png", root / "secret.png")
    elif way == "link to a folder":
        os.symlink(outside, root / "folder")
    else:
        (root / "series").mkdir()
        os.symlink(outside / "secret.png", root / "series" / "0.dcm")
    name = {"link": "secret.png", "link to a folder": "folder/secret.png"}.get(way, "series")
    with pytest.raises(InputError, match=f"{name} lies outside"):
        files(root, "image.png", name).unreadable()


class _Rows(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, images: ImageFiles) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.images.scaled([row], (0, 1))[0]


def test_what_a_worker_decodes_all_have(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        write_picture(tmp_path / name, np.full((4, 4), 10 * i, np.uint8))
    images = files(tmp_path, *names, cache=4.5 * 16 / 2**30)  # room for four
    expected = torch.stack(
        list(
            DataLoader(
                _Rows(images), batch_size=None, num_workers=2, multiprocessing_context="fork"
            )
        )
    )
    for name in names[:4]:
        (tmp_path / name).unlink()
    assert torch.equal(images.scaled(range(4), (0, 1)), expected[:4])
    assert torch.equal(images.subset(np.array([3, 5])).scaled([0, 1], (0, 1)), expected[[3, 5]])
    (tmp_path / names[5]).unlink()
    with pytest.raises(InputError, match=r"5\.png does not exist"):
        images.scaled([5], (0, 1))


def test_padding_is_the_smallest_number_of_the_image() -> None:
    image = np.full((2, 2, 1), 5, np.float32)
    image[0, 0], image[0, 1] = np.nan, -np.inf
    cropped = fitted(image, (4, 4), "crop")[..., 0]
    assert (cropped[0] == 5).all()
    assert np.isnan(cropped[1, 1])
    assert (fitted(np.full((2, 2, 1), np.nan), (4, 4), "crop")[0] == 0).all()


def test_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    """Bytes are changed and cut off at random; some make a decoder in Rust panic."""
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp"):
        write_picture(tmp_path / name, grey(8, (40, 50)))
    nibabel.save(nibabel.Nifti1Image(grey(16, (6, 7, 8)), np.eye(4)), tmp_path / "a.nii.gz")
    paths = [*tmp_path.iterdir(), Path(DATA_ROOT) / "test_files" / "MR_small_RLE.dcm"]
    rng, refused = np.random.default_rng(0), list[str]()
    for path in paths:
        whole = path.read_bytes()
        for turn in range(40):
            damaged = bytearray(whole[: int(rng.integers(1, len(whole)))] if turn % 3 else whole)
            for place in rng.integers(0, len(damaged), 8).tolist():
                damaged[place] = int(rng.integers(0, 256))
            broken = tmp_path / f"broken-{path.name}"
            broken.write_bytes(bytes(damaged))
            try:
                decode(broken)
            except Unreadable as error:
                refused.append(str(error))
    assert len(refused) > 100
    for reason in refused:
        assert str(tmp_path) not in reason
        assert reason.startswith(("is ", "has ", "holds ", "cannot be ", "does not "))


def test_where_the_first_has_another_type_the_others_are_right_and_kept(tmp_path: Path) -> None:
    write_picture(tmp_path / "0.png", grey(8))
    for place in range(1, 5):
        write_picture(tmp_path / f"{place}.png", grey(16) // place)
    images = files(tmp_path, *(f"{place}.png" for place in range(5)), cache=1e-3)
    assert images.unreadable() == {}
    assert images.dtype == np.uint16
    shown = images.scaled(range(5), (0, 1))
    np.testing.assert_allclose(shown[0, 0], grey(8) / 255, atol=1e-6)
    np.testing.assert_allclose(shown[3, 0], grey(16) // 3 / 65535, atol=1e-6)
    for place in range(1, 5):
        (tmp_path / f"{place}.png").unlink()
    assert torch.equal(images.scaled(range(5), (0, 1)), shown)
