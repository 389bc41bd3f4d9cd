"""Which pixels stand for an image: bounded in number, and the same ones whoever asks."""

from functools import lru_cache

import torch
from torch import Tensor

#: Pixels of a batch that objectives see; of larger batches as many, evenly spread. Four images of
#: 256² are seen whole.
ROWS = 2**18
#: Pixels of an image that tell as much about its classes' features as all do, picked by class.
PER_IMAGE = 64


@lru_cache(maxsize=32)
def positions(pixels: int, count: int, device: torch.device) -> Tensor | None:
    """Which of an image's pixels are rows: one drawn from each of ``count`` equal stretches.

    The draw is the same for each image and batch of that size, so that models are compared on the
    same pixels, and each pixel is as likely as any other.

    Args:
        pixels: of an image.
        count: how many are wanted.
        device: of the result.

    Returns:
        (count,) rising positions; None: all.
    """
    if count >= pixels:
        return None
    generator = torch.Generator().manual_seed(pixels)
    starts = torch.arange(count, dtype=torch.float64)
    drawn = starts + torch.rand(count, generator=generator, dtype=torch.float64)
    return (drawn * (pixels / count)).long().clamp(max=pixels - 1).to(device)


@lru_cache(maxsize=32)
def _lots(count: int, device: torch.device) -> Tensor:
    """(count,) a Gumbel variable for each row of an image."""
    generator = torch.Generator().manual_seed(count)
    uniform = torch.rand(count, generator=generator).clamp(1e-7, 1 - 1e-7)
    return -(-uniform.log()).log().to(device)


def balanced(labels: Tensor, num_classes: int, count: int = PER_IMAGE) -> Tensor:
    """Some of each image's rows without replacement, of each of its classes about as many.

    Rows are weighted by one over the size of their class, and those of the largest keys
    log weight + Gumbel taken (Efraimidis and Spirakis, 2006; Kool et al., ICML 2019).

    Args:
        labels: (N, k) class of each row.
        num_classes: C.
        count: rows an image.

    Returns:
        (N, m) their numbers within the image, rising; m is the smaller of ``count`` and k.
    """
    each = labels.new_zeros(len(labels), num_classes, dtype=torch.float32)
    each.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.float32))
    keys = _lots(labels.shape[1], labels.device) - each.gather(1, labels).log()
    picked = keys.topk(min(count, labels.shape[1]), dim=1, sorted=False).indices
    return picked.sort(1).values
