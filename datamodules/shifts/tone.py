"""Exposure and tone: what each pixel's value becomes."""

import numpy as np
import torch
from monai.transforms import AdjustContrast
from torch import Tensor

from holdfast.datamodules.shifts.geometry import bare, spatial


def flatten(image: Tensor, factor: float, rng: np.random.Generator) -> Tensor:
    """Less contrast about each channel's mean, to ``factor``; levels of Hendrycks & Dietterich
    (ICLR 2019).
    """
    mean = image.mean(spatial(image), keepdim=True)
    return (image - mean) * factor + mean


def brighten(image: Tensor, offset: float, rng: np.random.Generator) -> Tensor:
    """A value raised by ``offset``; in colour images hue and saturation stay, as in Hendrycks &
    Dietterich (ICLR 2019).
    """
    if len(image) != 3:
        return image + offset
    value = image.amax(0, keepdim=True)
    colour = torch.where(value > 0, image / value.clamp(min=1e-6), 1.0)
    return colour * (value + offset).clamp(max=1)


def darken(image: Tensor, gamma: float, rng: np.random.Generator) -> Tensor:
    """A tone curve of exponent ``gamma`` between the image's least and greatest value: darker
    middle tones.
    """
    return bare(AdjustContrast(gamma)(image))


def window(image: Tensor, width: float, rng: np.random.Generator) -> Tensor:
    """A part ``width`` of the range spread over all of it, more cut off above than below: another
    reading window.
    """
    return (image - (1 - width) / 4) / width
