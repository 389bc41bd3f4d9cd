"""Stain and light: what the three channels of a colour image become."""

import numpy as np
import torch
from torch import Tensor

#: Optical densities of haematoxylin, eosin and diaminobenzidine in red, green and blue (Ruifrok &
#: Johnston, 2001).
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

#: Wavelengths of red, green and blue, in nm, and their shares in luminance (ITU-R BT.709).
_WAVELENGTHS, _LUMINANCE = (
    torch.tensor([610.0, 550.0, 465.0]),
    torch.tensor([0.2126, 0.7152, 0.0722]),
)
_DAYLIGHT = 6500.0  # kelvin


def stain(image: Tensor, factor: float, rng: np.random.Generator) -> Tensor:
    """Haematoxylin ``factor`` times as dense and eosin by as much thinner: another laboratory's
    staining.
    """
    density = -image.clamp(min=1 / 255).log10()
    amounts = torch.tensor([factor, 1 / factor, 1.0])
    mixing = torch.linalg.inv(_STAINS) @ (amounts[:, None] * _STAINS)
    return 10 ** -torch.einsum("c...,cd->d...", density, mixing)


def temperature(image: Tensor, kelvin: float, rng: np.random.Generator) -> Tensor:
    """The light of a lamp of ``kelvin`` instead of daylight's 6500, by Planck's law, at equal
    luminance.
    """
    gains = _planck(kelvin) / _planck(_DAYLIGHT)
    gains = gains / (_LUMINANCE * gains).sum()
    return image * gains.reshape(3, *[1] * (image.dim() - 1))


def _planck(kelvin: float) -> Tensor:
    """Relative radiance of a black body at the three wavelengths."""
    return _WAVELENGTHS**-5 / torch.expm1(1.4388e7 / (_WAVELENGTHS * kelvin))
