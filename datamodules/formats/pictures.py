"""PNG, JPEG, TIFF and BMP files, through Pillow: grey or RGB, upright, with all their bits."""

import io
import math
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from holdfast.datamodules.formats.decoded import Array, Decoded, Unreadable, native, span_of
from holdfast.datamodules.formats.foreign import what_begins, what_it_is
from holdfast.datamodules.formats.memory import refuse_beyond_memory

#: No other of Pillow's many readers is needed, and some read what their names do not promise.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
#: Tags of TIFF.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2

# Said of pictures of 90 to 179 million pixels, which are read; larger ones are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_picture(path: Path) -> Decoded:
    """A picture (H, W, 1 or 3), as it is to be looked at: turned upright by its EXIF tag.

    Raises:
        Unreadable: it is no such picture, or Pillow would change its values.
    """
    try:
        # A file that is handed over open is not mapped into memory, which scrambles turned TIFFs.
        with path.open("rb") as file:
            return _picture(file)
    except UnidentifiedImageError as error:
        raise Unreadable(what_it_is(path)) from error


def picture_of(content: bytes) -> Decoded:
    """What ``read_picture`` makes of a file of these bytes.

    Raises:
        Unreadable: likewise.
    """
    try:
        return _picture(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise Unreadable(what_begins(content[:32])) from error


def _picture(file: IO[bytes]) -> Decoded:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            refuse_beyond_memory(math.prod(image.size) * len(image.getbands()))
            pixels = _turned_over(image, _signed(image, _upright(image)))
            bits = _bits(image)
            kind = "JPEG" if image.format == "MPO" else str(image.format)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise Unreadable(
            f"has more than {limit} million pixels: cut it into patches, or store it smaller"
        ) from error
    span = (0.0, float(2**bits - 1)) if 8 < bits < 16 else span_of(pixels.dtype)
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], span, kind=kind)


def _upright(image: Image.Image) -> Array:
    """The pixels, grey or RGB; refuses what Pillow would cut short."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # of which the others are previews, or the other eye
        raise Unreadable(f"has {pages} pages: write each to a file of its own")
    whole = image.mode.startswith("I") or image.mode == "F"
    if not whole and (_bits(image) > 8 or ";16" in str(getattr(image, "tile", ""))):
        raise Unreadable(
            f"has 16 bits a colour ({image.mode}), of which Pillow reads 8: write it as NIfTI or "
            "DICOM"
        )
    plain = _plain(image)
    ImageOps.exif_transpose(plain, in_place=True)
    return native(np.asarray(plain))


def _plain(image: Image.Image) -> Image.Image:
    """The image as grey or RGB, as it is otherwise."""
    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        if np.asarray(colour)[..., 3].min() < 255:
            raise Unreadable(
                "has transparent pixels, and a network would see the colours under them: "
                "flatten it onto a background"
            )
        return colour.convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.mode in ("P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise Unreadable(f"has colours of the kind {image.mode}: convert it to RGB")


def _bits(image: Image.Image) -> int:
    """Bits a colour, where a TIFF file says so; 8 otherwise."""
    return int(max(_tag(image, _BITS, (8,))))


def _signed(image: Image.Image, pixels: Array) -> Array:
    """The pixels in the type that a TIFF file has them in, where Pillow takes them for another."""
    signed = _SIGNED in _tag(image, _SAMPLE_FORMAT, (1,))
    if signed and pixels.dtype == np.uint8:
        return pixels.view(np.int8)
    if not signed and image.format == "TIFF" and pixels.dtype == np.int32:
        return pixels.view(np.uint32)
    return pixels


def _turned_over(image: Image.Image, pixels: Array) -> Array:
    """The pixels with bright for large; Pillow sees to that in 8 bits alone."""
    if _tag(image, _PHOTOMETRIC, 1) != _WHITE_IS_ZERO or _bits(image) <= 8:
        return pixels
    if pixels.dtype != np.uint16:
        raise Unreadable(
            "stores white as 0 in numbers without a largest value: write it with black as 0"
        )
    return (2 ** _bits(image) - 1) - pixels


def _tag(image: Image.Image, number: int, absent: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, absent)
