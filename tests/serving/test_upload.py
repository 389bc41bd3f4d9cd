"""Bytes that come in: the pixels that a folder of the same files gives, or a sentence."""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from holdfast.datamodules.decoding import Unreadable
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.formats.memory import at_most, refuse_beyond_memory
from holdfast.datamodules.ranges import value_range
from holdfast.serving.config import IncomingConfig
from holdfast.serving.upload import Reader, suffix_of


def reader(megapixels: float = 1.0, **options: Any) -> Reader:
    """Of a source of one channel, 16² pixels, in 8 bits."""
    given = IncomingConfig(**{"size": [16, 16], "channels": 1, **options})
    return Reader(given.reading(), (16, 16, 1), (0.0, 255.0), megapixels)


def picture(pixels: Any, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **more)
    return buffer.getvalue()


def nifti(pixels: Any) -> bytes:
    return bytes(nibabel.Nifti1Image(pixels, np.eye(4)).to_bytes())


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 24), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)
FILES = {
    "a.png": picture(GREY, "png"),
    "b.png": picture(COLOUR, "png"),
    "c.png": picture(RNG.integers(0, 2**16, (20, 24), dtype=np.uint16), "png"),
    "d.jpg": picture(COLOUR, "jpeg", quality=90),
    "e.tif": picture(GREY, "tiff"),
    "f.tif": picture(RNG.random((20, 24), dtype=np.float32), "tiff"),
    "g.bmp": picture(COLOUR, "bmp"),
    "h.nii": nifti(RNG.integers(0, 256, (20, 24, 1), dtype=np.uint8)),
    "i.nii.gz": gzip.compress(nifti(RNG.integers(0, 256, (20, 24, 1), dtype=np.uint8))),
    "j.dcm": Path(str(get_testdata_file("examples_rgb_color.dcm"))).read_bytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    images = load_folder(
        FolderConfig(root=str(tmp_path), size=[16, 16], channels=1, check=False), "target"
    )
    low, high = value_range(images.images, (0.0, 255.0))  # as a run has it
    images = replace(images, low=low, high=high)
    asked = reader().read(FILES[name])
    assert asked.dtype == torch.float32
    assert torch.equal(asked, images[0]["image"])
    assert asked.unique().numel() > 20


def test_a_window_holds_for_what_comes_in(tmp_path: Path) -> None:
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    with pytest.raises(Unreadable, match=r"holds HU.*data.window=\[LOW,HIGH\]"):
        reader().read(content)
    (tmp_path / "ct.dcm").write_bytes(content)
    config = FolderConfig(root=str(tmp_path), size=[16, 16], channels=1, window=[-500, 500])
    expected = load_folder(config, "target")[0]["image"]
    windowed = reader(window=[-500, 500])
    assert torch.equal(windowed.read(content), expected)
    with pytest.raises(Unreadable, match="of unsigned numbers, unlike most images before"):
        windowed.read(FILES["a.png"])


def test_one_odd_image_does_not_keep_out_those_that_follow() -> None:
    asked = reader()
    asked.read(nifti(RNG.random((20, 24, 1), dtype=np.float32)))
    with pytest.raises(Unreadable, match="unlike most images before"):
        asked.read(FILES["a.png"])
    for _ in range(3):
        asked.read(FILES["a.png"])
    with pytest.raises(Unreadable, match="that do not say what they span, unlike most"):
        asked.read(nifti(RNG.random((20, 24, 1), dtype=np.float32)))


def deflated(dataset: Any) -> bytes:
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A picture of 10,000 x 10,000 zeros, in 100 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    body = zlib.compress(bytes(10_001 * 10_000), 9)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def lying_nifti() -> bytes:
    """A header that promises far more than follows."""
    content = bytearray(nifti(np.zeros((20, 24, 1), np.uint8)))
    content[40:56] = struct.pack("<8h", 3, 30_000, 30_000, 30_000, 1, 1, 1, 1)
    return bytes(content)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty"),
    "text": (lambda: b"hello", "no PNG, JPEG"),
    "pickle": (lambda: b"\x80\x04\x95\x0c\x00\x00\x00", "no PNG, JPEG"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG"),
    "npz": (lambda: b"PK\x03\x04" + bytes(60), "no PNG, JPEG"),
    "cut PNG": (lambda: FILES["b.png"][:200], "cannot be read"),
    "a PNG's beginning": (lambda: b"\x89PNG\r\n\x1a\n", "PNG|read|is"),
    "cut JPEG": (lambda: FILES["d.jpg"][:100], "cannot be read|damaged|no"),
    "cut NIfTI": (lambda: FILES["h.nii"][:400], "cannot be read"),
    "cut gzip": (lambda: FILES["i.nii.gz"][:100], "cut off|damaged"),
    "gzip of nothing": (lambda: gzip.compress(b""), "no NIfTI|empty"),
    "gzip of a picture": (lambda: gzip.compress(FILES["a.png"]), "no NIfTI"),
    "gzip's beginning": (lambda: b"\x1f\x8b" + os.urandom(50), "damaged|cut"),
    "cut DICOM": (lambda: FILES["j.dcm"][:200], "cannot|no|does"),
    "DICOM's mark": (lambda: bytes(128) + b"DICM" + bytes(100), "cannot|no|does|is"),
    "gzip bomb": (lambda: gzip.compress(bytes(200_000_000), 9), "unpacks to more than"),
    "PNG bomb": (huge_png, "unpacks to 100000000 bytes, and 4000000 are allowed"),
    "lying NIfTI": (lying_nifti, "unpacks to"),
    "deflated DICOM": (
        lambda: deflated(pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))),
        "is deflated",
    ),
    "four pages": (
        lambda: picture(
            GREY, "tiff", save_all=True, append_images=[Image.fromarray(GREY) for _ in range(3)]
        ),
        "4 pages",
    ),
    "a volume": (lambda: nifti(np.zeros((8, 8, 8), np.uint8)), "other axes"),
    "no range": (lambda: picture(np.full((9, 9), 5000.0, np.float32), "tiff"), "cannot be scaled"),
    "all NaN": (lambda: picture(np.full((9, 9), np.nan, np.float32), "tiff"), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_in_a_sentence(name: str) -> None:
    make, told = REFUSED[name]
    asked = reader()
    if not told:  # read, and repaired later
        assert asked.read(make()).isnan().all()
        return
    with pytest.raises(Unreadable, match=told):
        asked.read(make())
    assert not list(Path(asked._folder.name).iterdir())


def test_another_form_than_the_sources_is_refused() -> None:
    asked = reader(size=[8, 8], channels=None)
    with pytest.raises(Unreadable, match=r"is 8x8 with 3 channel.*16x16 with 1"):
        asked.read(FILES["b.png"])
    assert suffix_of(FILES["j.dcm"]) == ".dcm"


def test_a_limit_holds_within_its_block_alone() -> None:
    with at_most(10), pytest.raises(Unreadable):
        refuse_beyond_memory(11)
    refuse_beyond_memory(11)
