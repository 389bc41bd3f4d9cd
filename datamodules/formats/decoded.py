"""What a reader of files returns, and what readers share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Scan(NamedTuple):
    """What a DICOM file says of its scan, as UIDs; nothing where it does not.

    Attributes:
        series: it belongs to.
        frames: of reference, within which its positions hold.
        instances: the files themselves; of a series in many files none, for its own UID tells it.
    """

    series: frozenset[str] = frozenset()
    frames: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()


class Unreadable(Exception):
    """A file that gives no image; the message says why, without naming the file."""


class Decoded(NamedTuple):
    """A file's content, in raw values: those of the file, DICOM rescaled to its unit.

    Attributes:
        pixels: (H, W, channels) or (D, H, W, channels); of the file's own type, or int16 or float32
            where DICOM is rescaled.
        span: the values between which such a file can lie, where it says so: those of an unsigned
            type, or of the bits that a DICOM file stores; None for signed and floating-point
            numbers, and for values in a unit.
        window: lower and upper end of a DICOM file's own display window.
        spacing: mm from one pixel to the next along each of the spatial axes, where known.
        affine: (4, 4), from voxels (x, y, z) to RAS coordinates in mm, where known; z of a plane is
            0.
        inverted: low values are bright (MONOCHROME1). The pixels stay raw: the ends of the range
            change places when it is scaled.
        display: the pixels as the file says they are to be shown, float32 in 0..1, where that is no
            one linear window (a lookup table, a sigmoid, a window for each slice).
        note: what is worth saying of a file that can be read; alike for all files of a kind.
        kind: what the file is, in a word or two (PNG, NIfTI, DICOM CT).
        unit: what the values are measured in, where the file says so (HU): such values share no
            range with others.
        turned: it was stored in another orientation, and turned to RAS.
        scan: which one a DICOM image is of, and a segmentation was made of.
    """

    pixels: Array
    span: tuple[float, float] | None
    window: tuple[float, float] | None = None
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    inverted: bool = False
    display: Callable[[], Array] | None = None
    note: str = ""
    kind: str = ""
    unit: str = ""
    turned: bool = False
    scan: Scan | None = None


def native(pixels: Array) -> Array:
    """The same numbers in the machine's byte order, which some TIFF and NIfTI files are not in."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def span_of(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """What unsigned numbers of 8 or 16 bits span; other types do not say."""
    return (0.0, float(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None
