"""Fewer pixels, fewer bits: how images are sampled and stored."""

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from holdfast.datamodules.shifts.geometry import pixels


def coarsen(image: Tensor, size: float, rng: np.random.Generator) -> Tensor:
    """A coarser acquisition, of pixels ``size`` times as wide on a side of 32, interpolated
    linearly to the old grid.
    """
    return _resampled(image, size, "bilinear" if image.dim() == 3 else "trilinear")


def pixelate(image: Tensor, size: float, rng: np.random.Generator) -> Tensor:
    """Square blocks (in 3D cubes) of ``size`` pixels on a side of 32, each of its mean value."""
    return _resampled(image, size, "nearest-exact")


def jpeg(image: Tensor, quality: float, rng: np.random.Generator) -> Tensor:
    """JPEG compression at ``quality`` 1 to 100, slice by slice; three channels as colour, others
    one by one.
    """
    height, width = image.shape[-2:]
    colour = len(image) == 3
    planes = (
        image.movedim(0, -1).reshape(-1, height, width, 3)
        if colour
        else image.reshape(-1, height, width)
    )
    values = (255 * planes.clamp(0, 1)).round().to(torch.uint8).numpy()
    stored = np.stack([_stored(plane, int(quality)) for plane in values])
    result = torch.from_numpy(stored).float() / 255
    return (
        result.reshape(*image.shape[1:], 3).movedim(-1, 0)
        if colour
        else result.reshape(image.shape)
    )


def _resampled(image: Tensor, size: float, mode: str) -> Tensor:
    shape = image.shape[1:]
    coarse = [max(1, round(side / max(1, pixels(image, size)))) for side in shape]
    small = nn.functional.interpolate(image[None], coarse, mode="area")
    return nn.functional.interpolate(small, shape, mode=mode)[0]


def _stored(plane: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """An image (H, W[, 3]) after compression."""
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
