"""Corruptions of scaled images, deterministic by seed and image id."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tta.errors import InputError
from tta.options import option

#: From a scaled image (channels, H, W), a severity 1..5 and a random generator to the corrupted image.
Corruption = Callable[[Tensor, int, np.random.Generator], Tensor]


@dataclass
class NoShiftConfig:
    """Images as they are."""


@dataclass
class ShiftConfig:
    """One corruption at one severity."""

    severity: int = option(3, "1 (mild) to 5 (severe)")
    seed: int = option(0, "seed of the corruption's randomness, with the image's id")

    def __post_init__(self) -> None:
        if not 1 <= self.severity <= 5:
            raise InputError(f"shift.severity={self.severity} is outside 1..5")


def noise(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Additive Gaussian noise; standard deviations of Hendrycks & Dietterich (ICLR 2019)."""
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    drawn = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return (image + sigma * drawn).clamp(0, 1)


def contrast(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Less contrast about each channel's mean; factors of Hendrycks & Dietterich (ICLR 2019)."""
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean((-2, -1), keepdim=True)
    return ((image - mean) * factor + mean).clamp(0, 1)


CORRUPTIONS: dict[str, Corruption] = {"noise": noise, "contrast": contrast}

#: Shifts by name, with the dataclass of their options.
SHIFTS: dict[str, type] = {"none": NoShiftConfig, **dict.fromkeys(CORRUPTIONS, ShiftConfig)}


def create_shift(kind: str, config: NoShiftConfig | ShiftConfig) -> Callable[[Tensor, str], Tensor] | None:
    """The transform from a scaled image and its id to the shifted image; None where nothing is to be done."""
    if isinstance(config, NoShiftConfig):
        return None
    corruption, severity, seed = CORRUPTIONS[kind], config.severity, config.seed

    def shift(image: Tensor, name: str) -> Tensor:
        return corruption(image, severity, np.random.default_rng([seed, zlib.crc32(name.encode())]))

    return shift
