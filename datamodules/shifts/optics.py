"""Light on its way to the sensor."""

import math

import numpy as np
import torch
from torch import Tensor

from holdfast.datamodules.shifts.geometry import convolved, offsets, pixels


def defocus(image: Tensor, radius: float, rng: np.random.Generator) -> Tensor:
    """Each point smeared over a disk (in 3D a ball) of ``radius`` pixels on a side of 32, with a
    soft edge of one pixel.
    """
    radius = pixels(image, radius)
    distance = offsets(image.dim() - 1, math.ceil(radius)).square().sum(0).sqrt()
    disk = (radius + 0.5 - distance).clamp(0, 1)
    return convolved(image, disk / disk.sum())


def motion(image: Tensor, length: float, rng: np.random.Generator) -> Tensor:
    """Each point smeared along a line of ``length`` pixels on a side of 32, in a random
    direction.
    """
    half = pixels(image, length) / 2
    grid = offsets(image.dim() - 1, math.ceil(half))
    direction = torch.from_numpy(rng.standard_normal(len(grid), dtype=np.float32))
    direction = (direction / direction.norm()).reshape(-1, *[1] * len(grid))
    along = (grid * direction).sum(0).clamp(-half, half)
    line = (1 - (grid - along * direction).square().sum(0).sqrt()).clamp(min=0)
    return convolved(image, line / line.sum())


def vignette(image: Tensor, tangent: float, rng: np.random.Generator) -> Tensor:
    """Light that falls off with the fourth power of the cosine, ``tangent`` that of its angle at
    the corners; off-centre.
    """
    # The optical axis lies in the middle third, so that objects in the image's middle are shaded
    # too.
    y, x = (
        torch.linspace(-1, 1, side) - shift
        for side, shift in zip(image.shape[-2:], rng.uniform(-0.3, 0.3, 2), strict=True)
    )
    radius = (y[:, None].square() + x.square()) / 2
    return image / (1 + tangent**2 * radius).square()
