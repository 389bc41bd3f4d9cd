"""Augmentations of training images, and of their masks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import monai.data
import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandFlip,
    RandGaussianNoise,
    RandRotate90,
)
from monai.transforms.transform import Randomizable
from torch import Tensor

from holdfast.datamodules.patches import Patches

#: Augmentations by name: MONAI transforms of one scaled image (channels, H, W) or (channels, D, H,
#: W), in plane.
AUGMENTATIONS: dict[str, Any] = {
    "flip": lambda: [RandFlip(prob=0.5, spatial_axis=-2), RandFlip(prob=0.5, spatial_axis=-1)],
    "mirror": lambda: [RandFlip(prob=0.5, spatial_axis=-1)],
    "rotate": lambda: [RandRotate90(prob=0.75, max_k=3, spatial_axes=(-2, -1))],
    "noise": lambda: [RandGaussianNoise(prob=0.5, std=0.05)],
    "gamma": lambda: [RandAdjustContrast(prob=0.5, gamma=(0.7, 1.5))],
}
#: Those that move pixels, and a mask with them.
_MOVING = ("flip", "mirror", "rotate")


class Augmentation:
    """Transforms of one scaled image, and of its mask where they move pixels.

    Args:
        names: keys of ``AUGMENTATIONS``.
        masked: images have masks; what moves pixels then comes first.
        patches: cut out of images and masks before all others; None: they stay whole.
    """

    def __init__(self, names: Sequence[str], masked: bool, patches: Patches | None = None) -> None:
        self.patches = patches
        moving = [name for name in names if name in _MOVING] if masked else []
        others = [name for name in names if name not in moving]
        self.moving = Compose([t for name in moving for t in AUGMENTATIONS[name]()])
        self.others = Compose([t for name in others for t in AUGMENTATIONS[name]()])

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "Augmentation":
        """Seed all transforms."""
        if self.patches is not None:
            self.patches.set_random_state(seed, state)
        self.moving.set_random_state(seed, state)
        self.others.set_random_state(seed, state)
        return self

    @property
    def random(self) -> list[Randomizable]:
        """All that draws, each with a generator ``R`` of its own."""
        composed = [self.moving, self.others]
        parts = [self.patches, *composed, *(one for each in composed for one in each.transforms)]
        return [one for one in parts if isinstance(one, Randomizable)]

    def __call__(self, image: Tensor, mask: Tensor | None = None) -> Any:
        """The image (channels, *spatial), or with a mask (*spatial) both."""
        if mask is None:
            return self.others(image)
        if self.patches is not None:
            image, mask = self.patches(image, mask)
        # Turned and flipped as one, for a float32 holds the number of any class.
        both = self.moving(torch.cat([image, mask[None].to(image.dtype)]))
        return self.others(both[:-1]), both[-1].to(mask.dtype)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Within the block, MONAI's transforms keep no account of what they did, which takes twice as
    long as doing it.
    """
    before = monai.data.get_track_meta()
    monai.data.set_track_meta(False)
    try:
        yield
    finally:
        monai.data.set_track_meta(before)
