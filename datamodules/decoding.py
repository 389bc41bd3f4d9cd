"""One image file as raw numbers: PNG, JPEG, TIFF, BMP, DICOM and NIfTI, through MONAI's readers."""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from monai.data import NibabelReader, PILReader, PydicomReader
from PIL import Image

Array = npt.NDArray[Any]

#: What a folder is searched for. A table may also name DICOM files without a suffix, and folders of one DICOM series.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".nii", ".nii.gz")


class Unreadable(Exception):
    """A file that gives no image; the message says why, without naming the file."""


class Decoded(NamedTuple):
    """A file's content.

    Attributes:
        pixels: (H, W, channels) or (D, H, W, channels), of the file's own type; DICOM rescaled to its unit.
        span: the values between which such a file can lie, where it says so: those of an unsigned type, or of the bits that a
            DICOM file stores; None for signed and floating-point numbers and for Hounsfield units.
        window: lower and upper end of a DICOM file's own display window.
        spacing: mm from one pixel to the next along each of the spatial axes, where a NIfTI file says so.
    """

    pixels: Array
    span: tuple[float, float] | None
    window: tuple[float, float] | None = None
    spacing: tuple[float, ...] | None = None


def decode(path: Path) -> Decoded:
    """Read a file, or the folder of a DICOM series.

    Raises:
        Unreadable: it does not exist, is damaged, or is of a kind that would be read wrongly.
    """
    if not path.exists():
        raise Unreadable("does not exist")
    if path.is_file() and not path.stat().st_size:
        raise Unreadable("is empty")
    name = path.name.lower()
    read = _nifti if name.endswith((".nii", ".nii.gz")) else _picture if name.endswith(SUFFIXES[:6]) else _dicom
    try:
        decoded = read(path)
    except Unreadable:
        raise
    except Exception as error:  # the readers' errors have no common base: OSError, SyntaxError, struct.error, KeyError, …
        raise Unreadable(" ".join(f"{type(error).__name__}: {error}".split())[:160]) from error
    if not (np.issubdtype(decoded.pixels.dtype, np.integer) or np.issubdtype(decoded.pixels.dtype, np.floating)):
        raise Unreadable(f"holds {decoded.pixels.dtype}, not numbers")
    if not decoded.pixels.size:
        raise Unreadable("has no pixels")
    return decoded


def _picture(path: Path) -> Decoded:
    reader = _reader(PILReader, reverse_indexing=False, converter=_plain)
    with reader.read(path) as image:
        pixels = _native(reader.get_data(image)[0])
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], _span_of(pixels.dtype))


def _plain(image: Image.Image) -> Image.Image:
    """The image as grey or RGB, as it is otherwise; refuses what Pillow would cut short."""
    if getattr(image, "n_frames", 1) > 1:
        raise Unreadable(f"has {image.n_frames} pages: write each to a file of its own")  # type: ignore[attr-defined]
    if image.mode == "RGB" and any(";16" in str(tile) for tile in image.tile):  # type: ignore[attr-defined]
        raise Unreadable("has 16 bits a colour, of which Pillow reads 8: write it as NIfTI or DICOM")
    if image.mode in ("1", "LA"):
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "F") or image.mode.startswith("I") else image.convert("RGB")


def _nifti(path: Path) -> Decoded:
    # Files are turned to one orientation: sites store theirs differently, and a network would take that for a shift.
    reader = _reader(NibabelReader, as_closest_canonical=True)
    pixels, about = reader.get_data(reader.read(path))
    pixels = _native(pixels)
    if pixels.ndim not in (2, 3, 4):
        raise Unreadable(f"has {pixels.ndim} axes: expected a plane, a volume, or a volume with channels")
    channels = pixels if pixels.ndim == 4 else pixels[..., None]
    if channels.ndim == 4 and channels.shape[2] == 1:
        channels = channels[:, :, 0]
    spatial = channels.ndim - 1  # NIfTI counts axes from left to right, we from the slowest
    turned = np.ascontiguousarray(channels.transpose(*reversed(range(spatial)), spatial))
    sides = np.linalg.norm(np.asarray(about["affine"])[:3, :3], axis=0)[:spatial][::-1]
    return Decoded(turned, _span_of(turned.dtype), spacing=tuple(sides.tolist()))


def _dicom(path: Path) -> Decoded:
    reader = _reader(PydicomReader, swap_ij=False, fname_regex=None)
    content = reader.read(path)
    slices = content if isinstance(content, list) else [content]
    if not slices:
        raise Unreadable("is a folder without DICOM files")
    first = slices[0]
    photometric = str(first.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        raise Unreadable("has palette colours: convert it to RGB")
    pixels, _ = reader.get_data(content)
    if len(slices) > 1:
        pixels = np.moveaxis(pixels, -1, 0)
    if first.get("SamplesPerPixel", 1) == 1:
        pixels = pixels[..., None]
    slope, intercept = float(first.get("RescaleSlope", 1) or 1), float(first.get("RescaleIntercept", 0) or 0)
    bits, signed = int(first.get("BitsStored", 16)), bool(first.get("PixelRepresentation", 0))
    lowest = -(2 ** (bits - 1)) if signed else 0
    ends = slope * lowest + intercept, slope * (lowest + 2**bits - 1) + intercept
    if photometric == "MONOCHROME1":  # bright means little: turned over, so that all files mean the same
        pixels = (sum(ends) - pixels.astype(np.float64)).astype(pixels.dtype)
    return Decoded(pixels, None if signed or intercept else (ends[0], ends[1]), _own_window(first))


def _own_window(dataset: Any) -> tuple[float, float] | None:
    """The first display window of a DICOM file."""
    values = [dataset.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None or value == "" for value in values):
        return None
    center, width = (float(value if isinstance(value, (int, float, str)) else value[0]) for value in values)
    return center - width / 2, center + width / 2


def _native(pixels: Array) -> Array:
    """The same numbers in the machine's byte order, which some TIFF and NIfTI files are not in."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _span_of(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    return (0.0, float(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None


@lru_cache(maxsize=1)
def _silence() -> None:
    # Said of every file, though the affine is of no use here.
    warnings.filterwarnings("ignore", message=".*affine.*identity.*", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*ImageOrientationPatient.*", category=UserWarning)


def _reader(kind: Any, **options: Any) -> Any:
    """A reader of its own for each file, for MONAI's keep state between reading and decoding."""
    _silence()
    return kind(**options)
