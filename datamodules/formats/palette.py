"""Pictures with a palette, as masks: numbers are the classes, and colours are for show."""

from pathlib import Path

import numpy as np
from PIL import Image

from holdfast.datamodules.formats.decoded import Decoded

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")


def decode_palette(path: Path) -> Decoded | None:
    """The numbers of a picture with a palette; None: it is none."""
    if not path.name.lower().endswith(_SUFFIXES):
        return None
    try:
        with Image.open(path) as image:
            if image.mode != "P":
                return None
            return Decoded(np.asarray(image)[..., None], None, kind=str(image.format))
    except (OSError, SyntaxError, ValueError):
        return None  # told of by the reader of pictures
