"""Broken images: pixels that are no numbers, or so far from the source's that one image would
outweigh all others.
"""

import torch
from torch import Tensor, nn

from holdfast.tta.distributed import any_of_all, total_of_all
from holdfast.tta.networks import Network

#: A pixel is broken beyond so many times the magnitude of the source's pixels; and, where that is
#: not known, beyond the second, whose squares still add up in single precision.
_TIMES, _AT_ALL = 1e4, 1e9


def largest_pixel(model: nn.Module) -> float:
    """Magnitude up to which a pixel counts as sound.

    Args:
        model: the source's network; ours knows the mean and standard deviation of the source's
            pixels.
    """
    if not isinstance(model, Network):
        return _AT_ALL
    return _TIMES * float((model.mean.abs() + model.std).max())


def sound(images: Tensor, largest: float = _AT_ALL) -> Tensor:
    """Whether all pixels are sound: a scalar that stays on its device; see ``repaired``."""
    low, high = torch.aminmax(images)  # a NaN among them makes both one, which nothing is above
    bound = min(largest, torch.finfo(images.dtype).max)
    return (low >= -bound) & (high <= bound)


def repaired(images: Tensor, largest: float = _AT_ALL) -> tuple[Tensor, Tensor | None]:
    """Images with broken pixels replaced, so that one broken image does not spoil its batch's
    statistics.

    Args:
        images: (N, channels, ...).
        largest: magnitude up to which a pixel is sound, from ``largest_pixel``.

    Several processes that share a batch must all ask.

    Returns:
        The images, each broken pixel replaced by its channel's mean over the sound pixels of the
        batch (0 where there are none); and the indices of the images that had such pixels, or None
        if all were sound.
    """
    kept = torch.isfinite(images) & (
        images.abs() <= largest
    )  # in half precision the bound itself is infinite
    if not any_of_all(not kept.all(), images.device):
        return images, None
    dims = [0, *range(2, images.dim())]
    known = torch.where(kept, images, 0.0)
    sums = total_of_all(known.sum(dims, keepdim=True))
    mean = sums / total_of_all(kept.sum(dims, keepdim=True)).clamp(min=1)
    broken = (~kept.flatten(1).all(1)).nonzero().squeeze(1)
    return torch.where(kept, images, mean), broken if len(broken) else None
