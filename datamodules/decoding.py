"""One image file as raw numbers, whichever reader it needs: `datamodules.formats` has one for each kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from datamodules.formats.decoded import Array, Decoded, Unreadable
from datamodules.formats.dicom import read_dicom
from datamodules.formats.nifti import read_nifti
from datamodules.formats.pictures import read_picture
from tta.errors import said

__all__ = ["SUFFIXES", "Array", "Decoded", "Unreadable", "decode"]

#: What a folder is searched for. A table may also name DICOM files without a suffix, and folders of one DICOM series.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".nii", ".nii.gz")


def decode(path: Path) -> Decoded:
    """Read a file, or the folder of a DICOM series.

    Raises:
        Unreadable: it does not exist, is damaged, or is of a kind that would be read wrongly.
    """
    if not path.exists():
        raise Unreadable("does not exist")
    if path.is_file() and not path.stat().st_size:
        raise Unreadable("is empty")
    try:
        decoded = _reader_of(path)(path)
    except Unreadable:
        raise
    except Exception as error:  # the readers' errors have no common base: OSError, SyntaxError, struct.error, KeyError, …
        raise Unreadable(f"cannot be read ({said(error, path)})") from error
    if not (
        np.issubdtype(decoded.pixels.dtype, np.integer)
        or np.issubdtype(decoded.pixels.dtype, np.floating)
    ):
        raise Unreadable(f"holds {decoded.pixels.dtype}, not numbers")
    if not decoded.pixels.size:
        raise Unreadable("has no pixels")
    return decoded


def _reader_of(path: Path) -> Callable[[Path], Decoded]:
    """What reads a file, by its suffix; without a known one it is taken for DICOM."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return read_nifti
    return read_picture if name.endswith(SUFFIXES[:6]) else read_dicom
