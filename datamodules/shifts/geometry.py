"""What the corruptions know of an image's axes: (channels, H, W) or (channels, D, H, W)."""

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

#: The shorter side that lengths in ``registry.py`` are given for, in pixels: that of the reference
#: models' images.
REFERENCE_SIDE = 32

#: Weights from which on a convolution is faster by way of the Fourier transform.
_LARGE = 1000


def spatial(image: Tensor) -> tuple[int, ...]:
    """The image's spatial dimensions, as negative numbers."""
    return tuple(range(1 - image.dim(), 0))


def pixels(image: Tensor, length: float) -> float:
    """A length given for a side of 32 pixels, in pixels of this image: the same share of its
    shorter in-plane side.
    """
    return length * min(image.shape[-2:]) / REFERENCE_SIDE


def offsets(dimensions: int, reach: int) -> Tensor:
    """Offsets from a kernel's middle, in pixels: (dimensions, *kernel), each side 2 * reach + 1."""
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij"))


def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    """Each channel convolved with one kernel.

    Args:
        image: (channels, *spatial).
        kernel: odd-sized, of as many dimensions as ``spatial``, smaller than twice the image, the
            same when mirrored.

    Returns:
        (channels, *spatial); beyond the border the image is continued by its border pixels.
    """
    widths = [side // 2 for side in reversed(kernel.shape) for _ in range(2)]
    padded = nn.functional.pad(image[None], widths, mode="replicate").transpose(0, 1)
    if kernel.numel() > _LARGE:
        axes, shape = spatial(image), padded.shape[2:]
        product = torch.fft.rfftn(padded, dim=axes) * torch.fft.rfftn(kernel, s=shape)
        whole = torch.fft.irfftn(
            product, s=shape, dim=axes
        )  # the border of a kernel's width has wrapped around
        return whole[(slice(None), 0, *(slice(side - 1, None) for side in kernel.shape))]
    convolve = nn.functional.conv2d if kernel.dim() == 2 else nn.functional.conv3d
    return convolve(padded, kernel[None, None]).transpose(0, 1)[0]


def drawn(transform: Any, image: Tensor, rng: np.random.Generator) -> Tensor:
    """The image through one of MONAI's random transforms, seeded from ``rng``."""
    return bare(transform.set_random_state(seed=int(rng.integers(2**32)))(image))


def bare(image: Tensor) -> Tensor:
    """A plain tensor, where MONAI gives one with metadata."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image
