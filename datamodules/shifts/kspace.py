"""What goes wrong in a magnetic resonance scanner: its fields, and the lines of k-space that it
reads.
"""

import math

import numpy as np
import torch
from monai.transforms import GibbsNoise, KSpaceSpikeNoise, RandBiasField
from torch import Tensor

from holdfast.datamodules.shifts.geometry import bare, drawn


def bias_field(image: Tensor, coefficient: float, rng: np.random.Generator) -> Tensor:
    """A smooth random field, exp of a cubic polynomial with coefficients up to ``coefficient``, as
    a factor.
    """
    return drawn(RandBiasField(prob=1, coeff_range=(-coefficient, coefficient)), image, rng)


def ringing(image: Tensor, alpha: float, rng: np.random.Generator) -> Tensor:
    """Gibbs ringing: k-space cut off beyond 1 - ``alpha`` of its half diagonal."""
    return bare(GibbsNoise(alpha)(image))


def spikes(image: Tensor, amplitude: float, rng: np.random.Generator) -> Tensor:
    """Stripes of ``amplitude`` across the image: one spike in k-space, at a random middle
    frequency.
    """
    shape = image.shape[1:]
    # An eighth to three eighths of the side from the centre, in each direction: stripes of 2 to 6
    # pixels.
    away = [rng.choice((-1, 1)) * rng.uniform(0.125, 0.375) for _ in shape]
    place = tuple(
        min(side - 1, side // 2 + round(share * side))
        for side, share in zip(shape, away, strict=True)
    )
    return bare(KSpaceSpikeNoise(place, math.log(amplitude * math.prod(shape)))(image))


def ghosting(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Ghosts along a random in-plane axis: all but every second to fourth line of k-space weaker by
    ``strength``.
    """
    axis, step = int(rng.integers(1, 3)), int(rng.integers(2, 5))
    spectrum = torch.fft.rfft(image, dim=-axis)
    weights = torch.full((spectrum.shape[-axis],), 1 - strength)
    weights[::step] = 1
    return torch.fft.irfft(
        spectrum * weights.reshape(-1, *[1] * (axis - 1)), image.shape[-axis], dim=-axis
    )
