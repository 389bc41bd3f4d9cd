"""One image file as raw numbers, whichever reader it needs: `datamodules.formats` has one for each
kind.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from holdfast.datamodules.formats.decoded import Array, Decoded, Unreadable
from holdfast.datamodules.formats.dicom import is_dicom, read_dicom
from holdfast.datamodules.formats.foreign import what_it_is
from holdfast.datamodules.formats.nifti import read_nifti
from holdfast.datamodules.formats.pictures import picture_of, read_picture
from holdfast.tta.errors import said

__all__ = ["SUFFIXES", "Array", "Decoded", "Unreadable", "decode", "decode_picture", "is_dicom"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_DICOM = (".dcm", ".dicom")
_NIFTI = (".nii", ".nii.gz")

#: What decoders in Rust raise where they find what cannot be; it is no ``Exception``.
_PANIC = "PanicException"

#: What a folder is searched for, beside DICOM files without a suffix; a table may also name folders
#: of one DICOM series.
SUFFIXES = (*_PICTURES, *_DICOM, *_NIFTI)


def decode(path: Path, frame: int | None = None) -> Decoded:
    """Read a file, or the folder of a DICOM series.

    Args:
        path: of it.
        frame: which volume of a NIfTI time series, from 0; None: the file is none.

    Raises:
        Unreadable: it does not exist, is damaged, or is of a kind that would be read wrongly.
    """

    def read() -> Decoded:
        _refuse_no_file(path)
        return _reader_of(path)(path) if frame is None else _frame(path, frame)

    return _checked(read, path)


def decode_picture(content: bytes) -> Decoded:
    """What ``decode`` makes of a PNG, JPEG or BMP file of these bytes.

    Raises:
        Unreadable: it is damaged, or of a kind that would be read wrongly.
    """
    return _checked(lambda: picture_of(content))


def _checked(read: Callable[[], Decoded], path: Path | None = None) -> Decoded:
    """What is read, where it is numbers; whatever a reader raises as ``Unreadable``."""
    try:
        decoded = read()
    except Unreadable:
        raise
    # The readers' errors have no common base: OSError, SyntaxError, struct.error, KeyError, …
    except Exception as error:
        raise Unreadable(f"cannot be read ({said(error, path)})") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise Unreadable(f"is damaged, and its decoder gave up ({error})") from error
    if decoded.pixels.dtype.kind not in "iuf":
        raise Unreadable(f"holds {decoded.pixels.dtype}, not numbers")
    if not decoded.pixels.size:
        raise Unreadable("has no pixels")
    return decoded


def _frame(path: Path, frame: int) -> Decoded:
    if not path.name.lower().endswith(_NIFTI):
        raise Unreadable("has no volumes to choose among, as a NIfTI time series has")
    return read_nifti(path, frame)


def _refuse_no_file(path: Path) -> None:
    """Refuse what is nothing to read from, before a reader waits for it."""
    try:
        about = os.stat(path)
    except FileNotFoundError as error:
        windows = ", and paths have slashes, not backslashes" if "\\" in path.name else ""
        raise Unreadable(f"does not exist{windows}") from error
    if stat.S_ISDIR(about.st_mode):
        if not any(entry.is_file() for entry in os.scandir(path)):
            raise Unreadable("is a folder without files, where one of a DICOM series is read")
    elif not stat.S_ISREG(about.st_mode):
        raise Unreadable("is a pipe, a socket or a device, and no file")
    elif not about.st_size:
        raise Unreadable("is empty")


def _reader_of(path: Path) -> Callable[[Path], Decoded]:
    """What reads a file, by its suffix; without a known one it may be DICOM, by its first bytes."""
    name = path.name.lower()
    if name.endswith(_NIFTI):
        return read_nifti
    if name.endswith(_PICTURES):
        return read_picture
    if path.is_dir() or name.endswith(_DICOM) or is_dicom(path):
        return read_dicom
    raise Unreadable(what_it_is(path))
