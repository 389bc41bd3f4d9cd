"""Pictures of every kind that Pillow reads: right in value and the right way up, or refused."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holdfast.datamodules.decoding import Unreadable, decode
from tests.datamodules.test_files import grey, write_dicom

Array = np.ndarray[Any, Any]


def write_tiff(path: Path, pixels: Array, bits: int = 0, **tags: int) -> Path:
    """A TIFF of one uncompressed strip, written by hand.

    Args:
        path: the file.
        pixels: (H, W) or (H, W, samples).
        bits: of a sample; 0: those of its type.
        tags: photometric, format (1 unsigned, 2 signed, 3 float), extra (of samples) or
            orientation.
    """
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    data = pixels.tobytes()
    numbers = {"photometric": 262, "extra": 338, "format": 339, "orientation": 274}
    values = {256: width, 257: height, 258: bits or 8 * pixels.itemsize, 259: 1, 262: 1}
    values |= {273: -1, 277: samples, 278: height, 279: len(data)}
    values |= {numbers[name]: value for name, value in tags.items()}
    end = 8 + 2 + 12 * len(values) + 4
    entries, more = b"", b""
    for number, value in sorted(values.items()):
        count = samples if number in (258, 339) else 1
        if number in (273, 279):
            entries += struct.pack("<HHI", number, 4, 1)
            entries += b"DATA" if value < 0 else struct.pack("<I", value)
        elif count <= 2:
            packed = struct.pack(f"<{count}H", *[value] * count)
            entries += struct.pack("<HHI", number, 3, count) + packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<HHII", number, 3, count, end + len(more))
            more += struct.pack(f"<{count}H", *[value] * count)
    entries = entries.replace(b"DATA", struct.pack("<I", end + len(more)))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(values))
    path.write_bytes(head + entries + b"\0\0\0\0" + more + data)
    return path


def write_png(path: Path, pixels: Array, bits: int, colour: int) -> Path:
    """A PNG of big-endian samples, written by hand; Pillow writes none of 16 bits a colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def turned(pixels: Array, orientation: int) -> Array:
    """What is to be seen of pixels that are stored in one of EXIF's eight ways."""
    ways: dict[int, Array] = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).T,
        8: np.rot90(pixels),
    }
    return ways[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_pictures_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    smooth = (np.add.outer(np.arange(16) * 3, np.arange(24) * 5)).astype(np.uint8)
    kinds = [smooth] if suffix == "jpg" else [smooth, smooth.astype(np.uint16) * 200]
    kinds += [smooth.astype(np.float32)] if suffix == "tif" else []
    for pixels in kinds:
        path = tmp_path / f"{pixels.dtype}.{suffix}"
        more = {"quality": 100} if suffix == "jpg" else {}
        Image.fromarray(pixels).save(path, exif=exif, **more)
        seen = decode(path).pixels[..., 0]
        assert seen.dtype == pixels.dtype
        np.testing.assert_allclose(seen, turned(pixels, orientation), atol=3)
    colour = np.stack([smooth, smooth, 255 - smooth], -1)
    Image.fromarray(colour).save(tmp_path / f"rgb.{suffix}", exif=exif)
    seen = decode(tmp_path / f"rgb.{suffix}").pixels[..., 2]
    np.testing.assert_allclose(seen, turned(255 - smooth, orientation), atol=16)


def test_of_several_pictures_of_a_camera_the_first_is_read(tmp_path: Path) -> None:
    first, other = np.full((8, 12), 80, np.uint8), np.full((4, 6), 200, np.uint8)
    with (tmp_path / "a.jpg").open("wb") as file:
        Image.fromarray(first).save(
            file, format="MPO", save_all=True, append_images=[Image.fromarray(other)]
        )
    decoded = decode(tmp_path / "a.jpg")
    assert (decoded.pixels == 80).all()
    assert (decoded.pixels.shape, decoded.kind) == ((8, 12, 1), "JPEG")


@pytest.mark.parametrize(
    ("pixels", "tags", "span"),
    [
        (grey(8).view(np.int8), {"format": 2}, None),
        (grey(16).view(np.int16), {"format": 2}, None),
        (grey(16).astype(np.uint32) * 65535, {"format": 1}, None),
        (grey(16).astype(np.int32) - 40000, {"format": 2}, None),
        (grey(8).astype(np.float32) / 7, {"format": 3}, None),
        (grey(16), {}, (0, 65535)),
        (grey(16).byteswap(), {}, (0, 65535)),
    ],
)
def test_tiff_numbers_are_what_the_file_says(
    tmp_path: Path, pixels: Array, tags: dict[str, int], span: tuple[int, int] | None
) -> None:
    decoded = decode(write_tiff(tmp_path / "a.tif", pixels, **tags))
    np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)
    assert (decoded.span, decoded.kind) == (span, "TIFF")


def test_white_may_be_zero(tmp_path: Path) -> None:
    for bits in (8, 16):
        path = write_tiff(tmp_path / "a.tif", grey(bits), photometric=0)
        np.testing.assert_array_equal(decode(path).pixels[..., 0], 2**bits - 1 - grey(bits))
    path = write_tiff(tmp_path / "a.tif", grey(8).astype(np.float32), photometric=0, format=3)
    with pytest.raises(Unreadable, match="white as 0"):
        decode(path)


def test_twelve_bits_span_twelve(tmp_path: Path) -> None:
    pixels = grey(12, (4, 6)).astype(np.uint32)
    pairs = pixels.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1
    )
    path = write_tiff(tmp_path / "a.tif", packed.astype(np.uint8).reshape(4, 9), bits=12)
    content = path.read_bytes().replace(
        struct.pack("<HHII", 256, 3, 1, 9), struct.pack("<HHII", 256, 3, 1, 6)
    )
    path.write_bytes(content)
    decoded = decode(path)
    np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)
    assert decoded.span == (0, 4095)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("kind", ["tif", "cmyk", "png"])
def test_sixteen_bits_a_colour_are_refused(tmp_path: Path, kind: str, samples: int) -> None:
    pixels = grey(16, (6, 9, 4 if kind == "cmyk" else samples))
    if kind == "png":
        path = write_png(tmp_path / "a.png", pixels.byteswap(), 16, {3: 2, 4: 6}[samples])
    else:
        tags = {"photometric": 5 if kind == "cmyk" else 2}
        tags |= {"extra": 2} if samples == 4 and kind != "cmyk" else {}
        path = write_tiff(tmp_path / "a.tif", pixels, **tags)
    with pytest.raises(Unreadable, match="16 bits a colour"):
        decode(path)


def test_grey_with_an_alpha_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", grey(16, (6, 9, 2)), 16, 4)
    with pytest.raises(Unreadable, match="16 bits a colour"):
        decode(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_dropped_where_it_hides_nothing(tmp_path: Path, mode: str) -> None:
    colour = grey(8, (6, 9, 3)) // 64 * 64
    wanted = colour[..., :1] if mode == "LA" else colour
    for alpha in (255, 0):
        covered = np.full((6, 9), 255, np.uint8)
        covered[2, 3] = alpha
        if mode == "LA":
            image = Image.fromarray(np.dstack([colour[..., 0], covered]), "LA")
        else:
            image = Image.fromarray(np.dstack([colour, covered]))
        if mode == "P":
            image = Image.fromarray(colour).quantize(64)
            wanted = np.asarray(image.convert("RGB"))
        more = {} if mode != "P" or alpha else {"transparency": int(np.asarray(image)[2, 3])}
        image.save(tmp_path / "a.png", **more)
        if alpha:
            np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, wanted)
            continue
        with pytest.raises(Unreadable, match=r"transparent pixels.*flatten it"):
            decode(tmp_path / "a.png")


def test_few_bits_and_palettes(tmp_path: Path) -> None:
    marks = grey(8) > 100
    Image.fromarray(marks).save(tmp_path / "one.png")
    np.testing.assert_array_equal(decode(tmp_path / "one.png").pixels[..., 0], marks * 255)
    four = write_png(tmp_path / "four.png", np.array([[0x10], [0xF0]], np.uint8), 4, 0)
    assert decode(four).pixels.ravel().tolist() == [0x11, 0xFF]
    palette = Image.fromarray(grey(8)).convert("P")
    palette.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    palette.save(tmp_path / "p.png")
    indices = np.asarray(palette)
    np.testing.assert_array_equal(
        decode(tmp_path / "p.png").pixels, np.stack([indices, 255 - indices, indices * 0 + 7], -1)
    )


def test_too_many_pixels_and_pages_are_refused(tmp_path: Path) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "large.png")
    with pytest.raises(Unreadable, match="has more than 178 million pixels: cut it into patches"):
        decode(tmp_path / "large.png")
    frames = [Image.fromarray(grey(8)) for _ in range(2)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(Unreadable, match="has 2 pages"):
        decode(tmp_path / "moving.png")


def test_files_of_other_kinds_are_named_with_a_remedy(tmp_path: Path) -> None:
    write_dicom(tmp_path / "really.png", grey(12))
    Image.fromarray(grey(8)).save(tmp_path / "really.gif")
    (tmp_path / "animal.jpg").write_bytes((tmp_path / "really.gif").read_bytes())
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    np.save(tmp_path / "a.npy", grey(8))
    for name, words in {
        "scan.svs": "is a whole-slide image: cut it into patches",
        "a.webp": "convert it to PNG",
        "a.jp2": "convert it to PNG",
        "a.mha": "convert it to NIfTI, as SimpleITK can",
        "a.nrrd": "convert it to NIfTI",
        "a.mgz": "convert it to NIfTI, as nibabel can",
        "a.bin": "is no image, or damaged",
        "a.tar": "is no image, or damaged",
    }.items():
        (tmp_path / name).write_bytes(b"something")
        with pytest.raises(Unreadable, match=words):
            decode(tmp_path / name)
    for name, words in {
        "really.png": "is DICOM under another suffix: name it .dcm",
        "animal.jpg": "is a picture of a kind that is not read: convert it to PNG",
        "pointer.png": "is a pointer of Git LFS",
        "a.npy": "is an array: read it by data=npz",
    }.items():
        with pytest.raises(Unreadable, match=words):
            decode(tmp_path / name)
    (tmp_path / "a").mkdir()
    with pytest.raises(Unreadable, match="is a folder without files"):
        decode(tmp_path / "a")
