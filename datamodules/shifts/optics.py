"""Light on its way to the sensor."""

import math

import numpy as np
import torch
from torch import Tensor

from datamodules.shifts.geometry import convolved, pixels


def defocus(image: Tensor, radius: float, rng: np.random.Generator) -> Tensor:
    """Each point smeared over a disk (in 3D a ball) of ``radius`` pixels on a side of 32, with a soft edge of one pixel."""
    radius = pixels(image, radius)
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    grid = torch.meshgrid(*[axis] * (image.dim() - 1), indexing="ij")
    distance = torch.stack(grid).square().sum(0).sqrt()
    disk = (radius + 0.5 - distance).clamp(0, 1)
    return convolved(image, disk / disk.sum())
