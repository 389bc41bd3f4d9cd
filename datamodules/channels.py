"""``data.channels`` for images that lie in memory; those in files are converted as they are
decoded.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.decoding import Decoded, Unreadable
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.reading import Reading
from holdfast.tta.errors import InputError

_CHUNK = 1024  # images whose channels are floats at a time


def with_channels(images: ImageSet, channels: int | None) -> ImageSet:
    """The images in colour (3) or in grey (1); None leaves them as they are.

    Raises:
        InputError: they have other channels than one or three.
    """
    pixels = images.images
    if channels in (None, images.channels) or isinstance(pixels, ImageFiles):
        return images
    if pixels.ndim == images.spatial_dims + 1:
        pixels = pixels[..., None]
    if channels == 3 and images.channels == 1:  # a view, which takes no memory
        return replace(images, images=np.broadcast_to(pixels, (*pixels.shape[:-1], 3)))
    parts = [
        _converted(pixels[start : start + _CHUNK], channels)
        for start in range(0, max(1, len(pixels)), _CHUNK)
    ]
    return replace(images, images=np.concatenate(parts))


def _converted(pixels: npt.NDArray[Any], channels: int | None) -> npt.NDArray[Any]:
    try:
        return Reading(channels=channels).apply(Decoded(pixels, None))[0]
    except Unreadable as error:
        raise InputError(f"each image {error}: leave data.channels out") from error
