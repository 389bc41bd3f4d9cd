"""Noise of the sensor."""

import numpy as np
import torch
from torch import Tensor


def gaussian(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Additive noise of standard deviation ``sigma``; levels of Hendrycks & Dietterich (ICLR 2019)."""
    return image + sigma * normal(image, rng)


def normal(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Independent standard normal numbers, shaped like the image."""
    return torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
