"""NIfTI: nibabel's own test files beside nibabel's own reader, and what ITK and others write."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from holdfast.datamodules.decoding import Unreadable, decode

#: nibabel's own files, and why one is refused; None: it is read.
FILES = {
    "anatomical.nii": None,
    "example4d.nii.gz": "is a time series of 2 volumes",
    "example_nifti2.nii.gz": "is a time series of 2 volumes",
    "functional.nii": "is a time series of 20 volumes",
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": None,
    "row_major.dconn.nii": "is Cifti2, no plain NIfTI",
    "standard.nii.gz": None,
}


def test_all_of_nibabels_files_are_known() -> None:
    found = {path.name for path in Path(data_path).glob("*.nii*")}
    assert found == FILES.keys()


@pytest.mark.parametrize("name", [name for name, reason in FILES.items() if reason is None])
def test_nibabels_files_are_read_as_nibabel_reads_them(name: str) -> None:
    decoded = decode(Path(data_path) / name)
    stored = nibabel.load(Path(data_path) / name)
    image: Any = nibabel.as_closest_canonical(stored)
    np.testing.assert_allclose(
        decoded.pixels[..., 0], image.get_fdata().transpose(2, 1, 0), rtol=1e-6
    )
    sides = np.linalg.norm(image.affine[:3, :3], axis=0)[::-1]
    np.testing.assert_allclose(decoded.spacing or (), sides)
    moved = nibabel.aff2axcodes(stored.affine) != ("R", "A", "S")
    assert (decoded.kind, decoded.turned) == ("NIfTI", moved)


@pytest.mark.parametrize("name", [name for name, reason in FILES.items() if reason])
def test_nibabels_files_that_are_no_image_are_refused(name: str) -> None:
    with pytest.raises(Unreadable, match=FILES[name]):
        decode(Path(data_path) / name)


def save(path: Path, values: np.ndarray[Any, Any], vector: bool = False, **units: Any) -> Path:
    affine = np.diag([-1.0, -2, 3, 1])
    image = nibabel.Nifti1Image(values, affine)
    if vector:
        image.header.set_intent("vector")
    if units:
        image.header.set_xyzt_units(**units)
    nibabel.save(image, path)
    return path


def test_what_itk_writes_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5, 6, 1, 3)).astype(np.float32)
    decoded = decode(save(tmp_path / "vector.nii.gz", values, vector=True, xyz="mm", t="sec"))
    upright = values[::-1, ::-1, :, 0].transpose(2, 1, 0, 3)
    np.testing.assert_array_equal(decoded.pixels, upright)
    assert (decoded.spacing, decoded.turned) == ((3, 2, 1), True)
    one = decode(save(tmp_path / "one.nii", values[:, :, :, :, 0], xyz="mm", t="sec"))
    np.testing.assert_array_equal(one.pixels, upright[..., :1])
    plane = decode(save(tmp_path / "plane.nii", values[:, :, :1], vector=True))
    np.testing.assert_array_equal(plane.pixels, upright[0])
    assert plane.spacing == (2, 1)


def test_channels_are_told_from_time_by_the_unit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    assert decode(save(tmp_path / "channels.nii", values)).pixels.shape == (6, 5, 4, 3)
    with pytest.raises(Unreadable, match=r"time series of 3 volumes: write each to a file"):
        decode(save(tmp_path / "time.nii", values, xyz="mm", t="sec"))
    with pytest.raises(Unreadable, match=r"time series of 3 volumes"):
        decode(save(tmp_path / "time.nii", values[..., None], xyz="mm", t="sec"))
    with pytest.raises(Unreadable, match="has 5 axes, 4x5x6x2x3"):
        decode(save(tmp_path / "both.nii", np.stack([values] * 2, 3), vector=True))


def test_colours_and_scaled_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 5, 1, 3), dtype=np.uint8)
    packed = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    decoded = decode(save(tmp_path / "rgb.nii", packed))
    np.testing.assert_array_equal(decoded.pixels, colours[::-1, ::-1, 0].transpose(1, 0, 2))
    assert decoded.span == (0, 255)
    stored = rng.integers(-1000, 1000, (4, 5, 6), dtype=np.int16)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "scaled.nii")
    loaded: Any = nibabel.load(tmp_path / "scaled.nii")
    decoded = decode(tmp_path / "scaled.nii")
    assert (decoded.pixels.dtype, decoded.span) == (np.float32, None)
    np.testing.assert_allclose(
        decoded.pixels[..., 0], loaded.get_fdata().transpose(2, 1, 0), rtol=1e-6, atol=1e-4
    )
    plain = decode(save(tmp_path / "plain.nii", stored))
    assert plain.pixels.dtype == np.int16
    nibabel.save(nibabel.Nifti1Image(stored.astype(np.complex64), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(Unreadable, match="holds complex64, not numbers"):
        decode(tmp_path / "c.nii")


def test_a_header_that_promises_more_than_there_is_memory_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.float32))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([32000] * 3, "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=r"unpacks to 1\.22e\+05 GiB, and .* of memory are free"):
        decode(path)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(Unreadable, match="unpacks to"):
        decode(tmp_path / "a.nii.gz")
    content[42:48] = np.array([64, 64, 64], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=r"cannot be read \(Expected 1048576 bytes, got 480"):
        decode(path)
