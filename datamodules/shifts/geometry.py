"""What the corruptions know of an image's axes: (channels, H, W) or (channels, D, H, W)."""

from torch import Tensor, nn

#: The shorter side that lengths in ``registry.py`` are given for, in pixels: that of the reference models' images.
REFERENCE_SIDE = 32


def spatial(image: Tensor) -> tuple[int, ...]:
    """The image's spatial dimensions, as negative numbers."""
    return tuple(range(1 - image.dim(), 0))


def pixels(image: Tensor, length: float) -> float:
    """A length given for a side of 32 pixels, in pixels of this image: the same share of its shorter in-plane side."""
    return length * min(image.shape[-2:]) / REFERENCE_SIDE


def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    """Each channel convolved with one kernel.

    Args:
        image: (channels, *spatial).
        kernel: odd-sized, of as many dimensions as ``spatial``, smaller than twice the image.

    Returns:
        (channels, *spatial); beyond the border the image is continued by its border pixels.
    """
    widths = [side // 2 for side in reversed(kernel.shape) for _ in range(2)]
    padded = nn.functional.pad(image[None], widths, mode="replicate").transpose(0, 1)
    convolve = nn.functional.conv2d if kernel.dim() == 2 else nn.functional.conv3d
    return convolve(padded, kernel[None, None]).transpose(0, 1)[0]
