"""DICOM files, and folders of one series, through pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
from monai.data import PydicomReader

from datamodules.formats.decoded import Decoded, Unreadable, reader_of


def is_dicom(path: Path) -> bool:
    """Whether a file bears DICOM's mark, whatever its name."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> Decoded:
    """A file, or all slices of a series, rescaled to their unit."""
    reader = reader_of(PydicomReader, swap_ij=False, fname_regex=None)
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
    slope, intercept = (
        float(first.get("RescaleSlope", 1) or 1),
        float(first.get("RescaleIntercept", 0) or 0),
    )
    bits, signed = int(first.get("BitsStored", 16)), bool(first.get("PixelRepresentation", 0))
    lowest = -(2 ** (bits - 1)) if signed else 0
    ends = slope * lowest + intercept, slope * (lowest + 2**bits - 1) + intercept
    if (
        photometric == "MONOCHROME1"
    ):  # bright means little: turned over, so that all files mean the same
        pixels = (sum(ends) - pixels.astype(np.float64)).astype(pixels.dtype)
    return Decoded(
        pixels,
        None if signed or intercept else (ends[0], ends[1]),
        _own_window(first),
        kind=f"DICOM {first.get('Modality', '')}".strip(),
        unit="HU" if first.get("RescaleType") == "HU" else "",
    )


def _own_window(dataset: Any) -> tuple[float, float] | None:
    """The first display window of a DICOM file."""
    values = [dataset.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None or value == "" for value in values):
        return None
    center, width = (
        float(value if isinstance(value, (int, float, str)) else value[0]) for value in values
    )
    return center - width / 2, center + width / 2
