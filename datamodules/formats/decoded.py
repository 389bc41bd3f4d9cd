"""What a reader of files returns, and what readers share."""

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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


def native(pixels: Array) -> Array:
    """The same numbers in the machine's byte order, which some TIFF and NIfTI files are not in."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def span_of(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    return (0.0, float(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None


@lru_cache(maxsize=1)
def _silence() -> None:
    # Said of every file, though the affine is of no use here.
    warnings.filterwarnings("ignore", message=".*affine.*identity.*", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*ImageOrientationPatient.*", category=UserWarning)


def reader_of(kind: Any, **options: Any) -> Any:
    """A reader of its own for each file, for MONAI's keep state between reading and decoding."""
    _silence()
    return kind(**options)
