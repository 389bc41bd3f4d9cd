"""Bytes that came in, as an image in the source's form: through the same readers as files."""

import tempfile
import zlib
from collections import Counter, deque
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian
from torch import Tensor

from holdfast.datamodules.decoding import Array, Decoded, Unreadable, decode, decode_picture
from holdfast.datamodules.formats.memory import at_most
from holdfast.datamodules.glance import form_of
from holdfast.datamodules.ranges import value_range
from holdfast.datamodules.reading import Reading, by
from holdfast.tta.errors import InputError

#: How files of each kind begin, and the suffix by which they are read.
_BEGINNINGS = (
    (128, b"DICM", ".dcm"),  # first, for its preamble may be that of a TIFF
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (0, b"II+\0", ".tif"),
    (0, b"MM\0+", ".tif"),
    (0, b"BM", ".bmp"),
    (344, b"n+1\0", ".nii"),
    (4, b"n+2\0", ".nii"),
)
#: Kinds that need no file to be decoded.
_IN_MEMORY = (".png", ".jpg", ".bmp")
_GZIP = b"\x1f\x8b"
#: Bytes that a pixel takes while it is decoded: four channels of 8 bits, or one of 32.
_BYTES_A_PIXEL = 4
#: Images whose values tell what is usual: some hours of a scanner, so that another one may follow.
_NEWEST = 256
#: Bytes of a NIfTI file before its pixels, its extensions among them.
_NIFTI_HEADER = 2**20
_PIECE = 2**20


class Reader:
    """Makes images of the bytes of files: PNG, JPEG, TIFF, BMP, DICOM or NIfTI.

    The kind is told by how the bytes begin, never by a name. Pixels become what ``data=folder``
    makes of the same file. What unpacks to more than is allowed is refused before it does.

    Args:
        reading: how a file becomes an image.
        shape: (*spatial, channels) that images must have, the source's.
        values: raw values that are 0 and 1 in the source.
        megapixels: that an image may have.
    """

    def __init__(
        self,
        reading: Reading,
        shape: tuple[int, ...],
        values: tuple[float, float],
        megapixels: float,
    ) -> None:
        self.reading, self.shape, self.range = reading, shape, values
        self._bytes = megapixels * 1e6 * _BYTES_A_PIXEL
        #: Of the newest images that came, also refused ones.
        self._scales: deque[str] = deque(maxlen=_NEWEST)
        self._counting = Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-")

    def read(self, content: bytes) -> Tensor:
        """An image (channels, *spatial), float32, scaled to 0..1; several threads may ask at once.

        Raises:
            Unreadable: it is none, or has another form than the source's images.
        """
        suffix = suffix_of(content)
        if suffix == ".nii.gz":
            content, suffix = self._unpacked(content), ".nii"
        with at_most(self._bytes):
            decoded = (
                decode_picture(content) if suffix in _IN_MEMORY else self._filed(content, suffix)
            )
        pixels, own = self.reading.apply(decoded)
        self._check(decoded, pixels)
        low, high = own or self._judged(decoded, pixels)
        image = np.moveaxis(pixels, -1, 0).astype(np.float32)
        image -= np.float32(low)
        image /= np.float32(high - low)
        return torch.from_numpy(image).clamp_(0, 1)

    def close(self) -> None:
        """Remove what is left of files."""
        self._folder.cleanup()

    def _filed(self, content: bytes, suffix: str) -> Decoded:
        """What is decoded of a file: the readers of volumes, and of TIFF in C, take one."""
        # A file without a name is nobody's to find, and gone when closed.
        with tempfile.NamedTemporaryFile(dir=self._folder.name, suffix=suffix, buffering=0) as file:
            file.write(content)
            if suffix == ".dcm":
                _refuse_deflated(Path(file.name))
            return decode(Path(file.name))

    def _check(self, decoded: Decoded, pixels: Array) -> None:
        """Refuse an image of another form than the source's, or of other values than most before;
        a first one that is odd does not keep out those that follow.
        """
        if pixels.shape != self.shape:
            (*sides, channels), (*ours, wanted) = pixels.shape, self.shape
            raise Unreadable(
                f"is {by(sides)} with {channels} channel(s), where the source was trained on "
                f"{by(ours)} with {wanted}"
            )
        scale = form_of(decoded, pixels).scale
        with self._counting:
            self._scales.append(scale)
            [(usual, _)] = Counter(self._scales).most_common(1)
        if not self.reading.suits({usual, scale}):
            raise Unreadable(
                f"has values {scale}, unlike most images before: send one kind, or start the "
                "service with data.window=percentile"
            )

    def _judged(self, decoded: Decoded, pixels: Array) -> tuple[float, float]:
        """The raw values that become 0 and 1 in a file that does not say what it spans."""
        if decoded.unit:
            raise Unreadable(
                f"holds {decoded.unit}, of which some range is to be shown: start the service with "
                "data.window=[LOW,HIGH]"
            )
        try:
            return value_range(pixels[None], self.range)
        except InputError as error:
            raise Unreadable(f"cannot be scaled: {error}") from error

    def _unpacked(self, content: bytes) -> bytes:
        """What gzip packed, no more of it than an image may have."""
        most = int(self._bytes) + _NIFTI_HEADER
        unpacked, left = bytearray(), content
        try:
            while left:
                member = zlib.decompressobj(16 + zlib.MAX_WBITS)
                while not member.eof:
                    piece = member.decompress(left, _PIECE)
                    unpacked += piece
                    left = member.unconsumed_tail or member.unused_data
                    if len(unpacked) > most:
                        raise Unreadable(f"unpacks to more than {most / 2**20:.0f} MiB")
                    if not piece and not left and not member.eof:
                        raise Unreadable("is cut off")
        except zlib.error as error:
            raise Unreadable("is damaged: gzip cannot unpack it") from error
        if suffix_of(bytes(unpacked[:_NIFTI_HEADER])) != ".nii":
            raise Unreadable("is packed by gzip and no NIfTI: send it unpacked")
        return bytes(unpacked)


def suffix_of(content: bytes) -> str:
    """The suffix of a file of this kind.

    Raises:
        Unreadable: it is none of those that are read.

    >>> suffix_of(b"BM and more")
    '.bmp'
    """
    if not content:
        raise Unreadable("is empty")
    if content.startswith(_GZIP):
        return ".nii.gz"
    for place, mark, suffix in _BEGINNINGS:
        if content[place : place + len(mark)] == mark:
            return suffix
    raise Unreadable("is no PNG, JPEG, TIFF, BMP, DICOM or NIfTI by its first bytes")


def _refuse_deflated(path: Path) -> None:
    """Refuse DICOM that is packed as a whole: nothing says how much it unpacks to."""
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception:  # whatever is wrong with it, the reader says it
        return
    if syntax == DeflatedExplicitVRLittleEndian:
        raise Unreadable("is deflated DICOM: send it with another transfer syntax")
