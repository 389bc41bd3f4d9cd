"""Noise of the sensor."""

import numpy as np
import torch
from monai.transforms import RandRicianNoise
from torch import Tensor

from holdfast.datamodules.shifts.geometry import drawn


def gaussian(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Additive noise of standard deviation ``sigma``; levels of Hendrycks & Dietterich (ICLR
    2019).
    """
    return image + sigma * normal(image, rng)


def rician(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Magnitude of a signal with noise ``sigma`` in its real and imaginary part, as MR scanners
    show it.
    """
    return drawn(RandRicianNoise(prob=1, std=sigma, sample_std=False), image, rng)


def shot(image: Tensor, photons: float, rng: np.random.Generator) -> Tensor:
    """Poisson noise of a sensor that counts ``photons`` where the image is 1."""
    return (
        torch.from_numpy(rng.poisson(image.clamp(min=0).numpy() * photons).astype(np.float32))
        / photons
    )


def speckle(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Multiplicative noise of relative standard deviation ``sigma``."""
    return image + sigma * image * normal(image, rng)


def normal(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Independent standard normal numbers, shaped like the image."""
    return torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
