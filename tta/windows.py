"""Windows of images that are too large to be seen at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Numbers in the images of one pass, at most: windows beyond them follow in another. 2²² are 64
#: windows of 256² pixels, or 16 of 64³ voxels. On a CPU, whose cache holds less, 2¹⁸ take two
#: thirds of the time (docs/evidence/speed.md).
_AT_ONCE, _AT_ONCE_ON_CPU = 2**22, 2**18


#: Windows of an image that an update learns from: more of one say little more.
WINDOWS = 4


def larger(images: Tensor, window: Sequence[int]) -> bool:
    """Whether images (N, channels, *spatial) are larger than a window on any axis."""
    return any(side > ours for side, ours in zip(images.shape[2:], window, strict=True))


def slide(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    window: Sequence[int],
    overlap: float,
    *,
    together: bool = True,
) -> Tensor:
    """Maps of images, window by window where they are larger than one; by MONAI.

    Windows lie on a grid and overlap; where they do, maps are averaged, the middle of a window
    counting more than its border (a Gaussian, as nnU-Net weighs them).

    Args:
        network: from (M, channels, *window) to maps (M, width, *window).
        images: (N, channels, *spatial).
        window: its sides.
        overlap: share of a side that a window has in common with the next, in [0, 1).
        together: whether what the network says of a window depends on those that it sees beside
            it, so that it sees as many as there is room for.

    Returns:
        (N, width, *spatial).
    """
    if not larger(images, window):
        return network(images)
    sides = images.shape[2:]
    # An axis that is shorter than the window is taken whole, rather than filled up.
    roi = [min(side, ours) for side, ours in zip(sides, window, strict=True)]
    room = _AT_ONCE if together or images.device.type != "cpu" else _AT_ONCE_ON_CPU
    count = max(1, room // (images.shape[1] * torch.Size(roi).numel()))

    def seen(parts: Tensor) -> Tensor:
        # MONAI weighs maps in place, which the last layer may need as they are for its gradient.
        maps = network(parts)
        return maps.clone() if maps.requires_grad else maps

    # Here, for MONAI takes a second to import, and methods need it where there are windows.
    from monai.inferers import sliding_window_inference

    maps = sliding_window_inference(images, roi, count, seen, overlap, mode="gaussian")
    assert isinstance(maps, Tensor)
    return maps


def drawn(images: Tensor, window: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Windows at random places, as many of each image; images no larger than one are themselves.

    >>> drawn(torch.zeros(2, 1, 8, 6), (4, 4), 3, torch.Generator().manual_seed(0)).shape
    torch.Size([6, 1, 4, 4])

    Args:
        images: (N, channels, *spatial).
        window: its sides.
        count: windows of an image.
        generator: where the places come from, on the CPU.

    Returns:
        (N · count, channels, *window), those of an image one after another.
    """
    if not larger(images, window):
        return images
    free = [side - min(side, ours) for side, ours in zip(images.shape[2:], window, strict=True)]
    found = []
    for image in images:
        for _ in range(count):
            part = image
            for axis, room in enumerate(free, start=1):
                start = int(torch.randint(room + 1, (), generator=generator))
                part = part.narrow(axis, start, image.shape[axis] - room)
            found.append(part)
    return torch.stack(found)
