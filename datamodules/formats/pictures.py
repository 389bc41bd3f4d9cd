"""PNG, JPEG, TIFF and BMP files, through Pillow."""

from pathlib import Path

from monai.data import PILReader
from PIL import Image

from datamodules.formats.decoded import Decoded, Unreadable, native, reader_of, span_of


def read_picture(path: Path) -> Decoded:
    """A picture, grey or RGB."""
    reader = reader_of(PILReader, reverse_indexing=False, converter=_plain)
    with reader.read(path) as image:
        pixels = native(reader.get_data(image)[0])
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], span_of(pixels.dtype))


def _plain(image: Image.Image) -> Image.Image:
    """The image as grey or RGB, as it is otherwise; refuses what Pillow would cut short."""
    if getattr(image, "n_frames", 1) > 1:
        raise Unreadable(f"has {image.n_frames} pages: write each to a file of its own")  # type: ignore[attr-defined]
    if image.mode == "RGB" and any(";16" in str(tile) for tile in image.tile):  # type: ignore[attr-defined]
        raise Unreadable(
            "has 16 bits a colour, of which Pillow reads 8: write it as NIfTI or DICOM"
        )
    if image.mode in ("1", "LA"):
        return image.convert("L")
    return (
        image
        if image.mode in ("L", "RGB", "F") or image.mode.startswith("I")
        else image.convert("RGB")
    )
