"""How a scaled image becomes the one that is shown, and its mask with it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: From a scaled image and its id to the image that is shown. One that moves pixels has a method
#: ``moved(mask, name)`` too, which does the same to a mask (*spatial).
Transform = Callable[[Tensor, str], Tensor]


def shown(transform: Transform, image: Tensor, name: str, mask: Tensor) -> tuple[Tensor, Tensor]:
    """An image under a transform, and its mask moved along where that moves pixels.

    Args:
        transform: what is done.
        image: (channels, *spatial) scaled.
        name: its id.
        mask: (*spatial) classes.
    """
    move = getattr(transform, "moved", None)
    # What is broken stays as it is (see ``Shift``), and so does its mask.
    if move is not None and bool(image.isfinite().all()):
        mask = move(mask, name)
    return transform(image, name), mask


def shown_batch(
    transforms: Sequence[Transform | None], images: Tensor, names: Sequence[str]
) -> Tensor:
    """Images of a batch, each under its transform.

    Args:
        transforms: of each image; None: it stays as it is.
        images: (B, channels, *spatial) scaled.
        names: their ids.
    """
    return torch.stack(
        [
            image if transform is None else transform(image, name)
            for transform, image, name in zip(transforms, images, names, strict=True)
        ]
    )


def shown_together(
    transforms: Sequence[Transform | None],
    images: Tensor,
    names: Sequence[str],
    masks: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same of images and of masks (B, *spatial), which are moved along."""
    pairs = [
        (image, mask) if transform is None else shown(transform, image, name, mask)
        for transform, image, name, mask in zip(transforms, images, names, masks, strict=True)
    ]
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])
