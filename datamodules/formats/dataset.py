"""One DICOM file: what it is, and its pixels as they are stored."""

import math
import struct
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import RTStructureSetStorage, VLWholeSlideMicroscopyImageStorage

from holdfast.datamodules.formats.decoded import Array, Unreadable, native
from holdfast.datamodules.formats.headers import Header, frames_of
from holdfast.datamodules.formats.memory import refuse_beyond_memory
from holdfast.tta.errors import said

_PREAMBLE = 128  # bytes of a DICOM file before its mark
_MARK = b"DICM"
_EXTRA = 'pip install "holdfast[dicom]"'
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

#: What pydicom and its decoders raise on damaged or contradictory files.
_DAMAGE = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class Frame(NamedTuple):
    """One plane as it is stored.

    Attributes:
        header: what the file says of it.
        pixels: (H, W, channels).
        name: of its file.
    """

    header: Header
    pixels: Array
    name: str


def is_dicom(path: Path) -> bool:
    """Whether a file bears DICOM's mark, whatever its name."""
    with open(path, "rb") as file:
        return file.read(_PREAMBLE + len(_MARK))[_PREAMBLE:] == _MARK


def opened(path: Path) -> Dataset:
    """A file's attributes.

    Raises:
        Unreadable: it is no DICOM file.
    """
    _silence()
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise Unreadable(
            "is no DICOM file: it lacks the mark DICM after 128 bytes, which each one has"
        ) from error


def frames(dataset: Dataset, name: str, colours: bool = True) -> list[Frame]:
    """The planes of a file: grey, or RGB.

    Args:
        dataset: the file, which loses its pixels.
        name: of the file.
        colours: numbers of a palette become its colours.

    Raises:
        Unreadable: it holds no image, or one that cannot be decoded.
    """
    _check_kind(dataset)
    _check_decoder(dataset)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:  # where decoders tell
        _check_bits(Header(dataset))
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    count = frames_of(dataset)
    try:
        pixels = native(_decoded(dataset))
        if photometric == "PALETTE COLOR" and colours:
            pixels = apply_color_lut(pixels, dataset)
    except _DAMAGE as error:
        reason = said(error)
        raise Unreadable(f"cannot be decoded: {reason}{_remedy(dataset)}") from error
    if photometric.startswith("MONOCHROME") or not colours:
        pixels = pixels[..., None]
    elif pixels.shape[-1] != 3 or not photometric.startswith(("RGB", "YBR", "PALETTE")):
        raise Unreadable(f"has colours as {photometric or 'it does not say'}: convert it to RGB")
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    if pixels.size != count * math.prod(pixels.shape[-3:]):
        raise Unreadable(
            "holds more pixels than it says: its Rows, Columns or NumberOfFrames are wrong"
        )
    for keyword in _PIXELS:  # else they are kept twice as long as the headers are
        dataset.pop(keyword, None)
    planes = pixels.reshape(count, *pixels.shape[-3:])
    return [Frame(Header(dataset, index), plane, name) for index, plane in enumerate(planes)]


def _decoded(dataset: Dataset) -> Array:
    try:
        return pixel_array(dataset)
    except BaseException as error:  # a panic of the RLE decoder, which is in Rust, is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise Unreadable("cannot be decoded: its compressed pixels are damaged") from error


def _check_kind(dataset: Dataset) -> None:
    """Refuse what holds no image, and say what it is."""
    if any(name in dataset for name in _PIXELS):
        if (
            dataset.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage
            and frames_of(dataset) > 1
        ):
            raise Unreadable("is a whole slide in tiles: cut it into patches, as PNG or TIFF")
        return
    if "DirectoryRecordSequence" in dataset:
        raise Unreadable("is a DICOMDIR, the index of a disc: name the image files instead")
    uid = dataset.get("SOPClassUID")
    if uid == RTStructureSetStorage:
        raise Unreadable("holds contours, and no pixels: write them as a DICOM SEG or NIfTI mask")
    kind = uid.name.removesuffix(" Storage") if uid else "of no known kind"
    raise Unreadable(f"is DICOM without pixels ({kind}): leave it out")


def _remedy(dataset: Dataset) -> str:
    """What may decode it, where the decoder that reads most is missing."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or "pylibjpeg" in get_decoder(syntax).available_plugins:
        return ""
    return f": {_EXTRA} may read it"


def _check_size(header: Header, count: int) -> None:
    """Refuse what unpacks to more than the memory."""
    sides = [header.number(name) or 1 for name in ("Rows", "Columns", "SamplesPerPixel")]
    refuse_beyond_memory(math.prod(sides) * count * (header.number("BitsAllocated") or 8) / 8)


def _check_decoder(dataset: Dataset) -> None:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise Unreadable("does not say how it is encoded (no TransferSyntaxUID)")
    if not syntax.is_compressed or syntax.is_deflated:
        return
    _check_size(Header(dataset), frames_of(dataset))
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise Unreadable(
            f"is compressed as {syntax.name}, for which there is no decoder: write it anew as PNG "
            "or DICOM"
        ) from error
    if not available:
        raise Unreadable(f"is compressed as {syntax.name}: {_EXTRA} reads it")


def _check_bits(header: Header) -> None:
    """Refuse values that lie above the lowest bits, where the standard demands and decoders expect
    them.
    """
    stored, high = header.number("BitsStored"), header.number("HighBit")
    if stored is not None and high is not None and high >= stored:
        raise Unreadable(
            f"keeps values of {stored:g} bits below bit {high:g} (HighBit): write it anew with the "
            "values at the lowest bits"
        )


@lru_cache(maxsize=1)
def _silence() -> None:
    # Said of every file of a scanner; what makes an image wrong is an error, not a warning.
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
