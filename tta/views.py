"""Random views of images, for methods that ask a network about the same image twice; 2D and 3D, on
any device.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.errors import InputError


def random_view(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Each image flipped, turned, shifted, scaled, and changed in brightness, contrast and noise,
    by chance.

    The ranges at strength 1 are those of CoTTA's augmentation (Wang et al., CVPR 2022): 15 degrees,
    1/16 of the side, scale 0.9 to 1.1, contrast 0.8 to 1.2, noise 0.005; values stay within the
    batch's range.

    Args:
        images: (N, channels, H, W) or (N, channels, D, H, W).
        generator: on the CPU; the draws are the same on any device.
        strength: factor on all ranges.

    Returns:
        Tensor of the same shape.
    """
    return view_with_move(images, generator, strength)[0]


def view_with_move(
    images: Tensor, generator: torch.Generator, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """``random_view``, and how it moved each image: (N, dims, dims + 1), for ``moved_back``.

    Raises:
        InputError: they are neither pictures nor volumes.
    """
    count, dims = len(images), images.dim() - 2
    if dims not in (2, 3):
        raise InputError(
            "the method looks at random views of pictures (N, channels, H, W) or volumes, and "
            f"one of these has the shape {tuple(images.shape[1:])}: use another method, such as "
            "tent, dsbr or sar"
        )

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(count, *shape, generator=generator, dtype=torch.float32)
        return (low + (high - low) * drawn).to(images.device)

    matrix = _rotation(uniform(-0.26 * strength, 0.26 * strength), dims)
    scale = 1 + uniform(-0.1 * strength, 0.1 * strength)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    matrix = matrix * scale[:, None, None]
    matrix[:, :, 0] = (
        matrix[:, :, 0] * flip[:, None]
    )  # the last spatial axis is the first coordinate
    offset = uniform(
        -strength / 8, strength / 8, dims
    )  # a sixteenth of a side is an eighth of [-1, 1]
    theta = torch.cat([matrix, offset[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    view = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    low, high = images.min(), images.max()
    shape = (count,) + (1,) * (dims + 1)
    contrast, brightness = (
        1 + uniform(-0.2 * strength, 0.2 * strength),
        uniform(-0.1 * strength, 0.1 * strength),
    )
    center = view.mean(list(range(1, dims + 2)), keepdim=True)
    view = (view - center) * contrast.view(shape) + center + brightness.view(shape) * (high - low)
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images.device)
    view = view + 0.005 * strength * (high - low) * noise
    return torch.minimum(torch.maximum(view, low), high).to(images.dtype), theta


def moved_back(maps: Tensor, move: Tensor) -> Tensor:
    """What is said of the pixels of moved images, where those pixels were before.

    Pixels that had left the view get what is said at its border.

    Args:
        maps: (N, K, *spatial), of any resolution.
        move: (N, dims, dims + 1), from ``view_with_move``.
    """
    matrix = torch.linalg.inv(move[:, :, :-1])
    offset = -matrix @ move[:, :, -1:]
    grid = F.affine_grid(torch.cat([matrix, offset], 2), list(maps.shape), align_corners=False)
    back = F.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False)
    return back.to(maps.dtype)


def _rotation(angles: Tensor, dims: int) -> Tensor:
    """(N, dims, dims) rotations in the plane of the last two axes."""
    matrix = torch.eye(dims, device=angles.device).repeat(len(angles), 1, 1)
    cos, sin = angles.cos(), angles.sin()
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    return matrix


def shuffled_patches(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cut each image into ``count`` patches a side and put them together in a random order.

    Args:
        images: (N, channels, ...) with sides of at least ``count``; sides that ``count`` does not
            divide are resized for it.
        count: patches a side.
        generator: on the CPU.

    Returns:
        Tensor of the same shape.
    """
    sides = list(images.shape[2:])
    whole = [max(side // count, 1) * count for side in sides]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sides)]
    x = images if whole == sides else F.interpolate(images, whole, mode=mode, align_corners=False)
    n, channels, dims = len(x), x.shape[1], len(sides)
    split = [part for side in whole for part in (count, side // count)]
    grid, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
    patches = x.reshape(n, channels, *split).permute(0, *grid, 1, *inner)
    shape = patches.shape
    patches = patches.reshape(n, count**dims, -1)
    order = torch.rand(n, count**dims, generator=generator).argsort(1).to(images.device)
    patches = patches.gather(1, order[:, :, None].expand_as(patches)).reshape(shape)
    back = [0, dims + 1]
    for axis in range(dims):
        back += [1 + axis, dims + 2 + axis]
    x = patches.permute(back).reshape(n, channels, *whole)
    return x if whole == sides else F.interpolate(x, sides, mode=mode, align_corners=False)


def shuffled_pixels(images: Tensor, generator: torch.Generator) -> Tensor:
    """The pixels of all images in one random order, channels together."""
    flat = images.flatten(2)
    return flat[:, :, torch.randperm(flat.shape[2], generator=generator).to(images.device)].view_as(
        images
    )


def occluded(images: Tensor, corner: tuple[int, ...], size: int) -> Tensor:
    """Images with a square (a cube in 3D) filled with each image's channel mean.

    Args:
        images: (N, channels, ...).
        corner: first index of the square on each spatial axis.
        size: its side, in pixels.
    """
    result = images.clone()
    window = (slice(None), slice(None), *(slice(start, start + size) for start in corner))
    result[window] = images.flatten(2).mean(2).view(*images.shape[:2], *(1,) * len(corner))
    return result


def random_style(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Each image in another brightness, contrast, gamma and noise, its pixels where they were.

    Args:
        images: (N, channels, ...).
        generator: on the CPU; the draws are the same on any device.
        strength: factor on the ranges, which at 1 are contrast .7 to 1.3, gamma e^-.4 to e^.4,
            brightness .1 and noise .03 of the batch's range of values.
    """
    count, low, high = len(images), images.min(), images.max()
    shape = (count,) + (1,) * (images.dim() - 1)
    span = (high - low).clamp(min=torch.finfo(images.dtype).tiny)

    def drawn(reach: float) -> Tensor:
        value = (2 * torch.rand(shape, generator=generator) - 1) * reach * strength
        return value.to(images.device)

    unit = ((images - low) / span).clamp(min=0).float()
    styled = unit ** drawn(0.4).exp()
    center = styled.flatten(1).mean(1).view(shape)
    styled = (styled - center) * (1 + drawn(0.3)) + center + drawn(0.1)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    styled = (styled + 0.03 * strength * noise).clamp(0, 1)
    return (low + styled * span).to(images.dtype)


#: Moves images or maps (N, channels, ...) to others.
Move = Callable[[Tensor], Tensor]


def turns(images: Tensor) -> list[tuple[Move, Move]]:
    """Moves of images that lose nothing, each with what moves maps back: both flips, and turns by
    90, 180 and 270 degrees in the plane of the last two sides; of other than square ones no
    quarter turns, and of images without two sides none.
    """
    if images.dim() < 4:
        return []
    found: list[tuple[Move, Move]] = [
        (lambda x, axis=axis: x.flip(axis), lambda x, axis=axis: x.flip(axis))  # type: ignore[misc]
        for axis in (-1, -2)
    ]
    square = images.shape[-1] == images.shape[-2]
    for quarter in (1, 2, 3) if square else (2,):
        found.append(
            (
                lambda x, k=quarter: torch.rot90(x, k, (-2, -1)),  # type: ignore[misc]
                lambda x, k=quarter: torch.rot90(x, -k, (-2, -1)),  # type: ignore[misc]
            )
        )
    return found
