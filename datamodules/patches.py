"""Patches of large images, to train on."""

import math
from collections.abc import Sequence

import numpy as np
from monai.transforms import Randomizable
from torch import Tensor
from torch.nn.functional import pad

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.tta.errors import InputError

#: Share of the patches that are sure to show foreground, as nnU-Net draws them (Isensee et al.,
#: Nature Methods 2021): where a class is rare, most others show none.
_FOREGROUND = 1 / 3


class Patches(Randomizable):
    """Cuts a patch out of an image and its mask, at a random place.

    A third of them have a pixel of the foreground in their middle, or as near to it as the border
    of the image allows; classes of it are drawn equally often.

    Args:
        sides: of a patch, H, W or D, H, W.
    """

    def __init__(self, sides: Sequence[int]) -> None:
        self.sides = tuple(sides)

    def check(self, size: Sequence[int]) -> None:
        """Refuse patches that do not fit into images of this size.

        Raises:
            InputError: they have another number of axes, or are larger.
        """
        fits = len(self.sides) == len(size) and all(
            0 < ours <= side for ours, side in zip(self.sides, size, strict=True)
        )
        if not fits:
            shown = str(list(size)).replace(" ", "")
            raise InputError(
                f"patch={list(self.sides)} does not fit into images of {shown}: give a side for "
                "each axis, none longer than the image's"
            )

    def count(self, size: Sequence[int]) -> int:
        """How many patches have about as many pixels as an image of this size."""
        return max(1, round(math.prod(size) / math.prod(self.sides)))

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A patch of an image (channels, *spatial), and of its mask (*spatial).

        An image that is shorter than a patch is continued by 0, its mask by what does not count.
        """
        short = [max(0, ours - side) for ours, side in zip(self.sides, mask.shape, strict=True)]
        if any(short):
            widths = [width for missing in reversed(short) for width in (0, missing)]
            image, mask = pad(image, widths), pad(mask, widths, value=UNLABELLED)
        starts = self._starts(mask)
        for axis, (start, side) in enumerate(zip(starts, self.sides, strict=True)):
            image, mask = image.narrow(axis + 1, start, side), mask.narrow(axis, start, side)
        return image, mask

    def _starts(self, mask: Tensor) -> list[int]:
        """Where a patch begins on each axis."""
        room = [side - ours for side, ours in zip(mask.shape, self.sides, strict=True)]
        shown = [label for label in np.unique(mask.numpy()).tolist() if label > 0]
        if not shown or self.R.random_sample() >= _FOREGROUND:
            return [int(self.R.randint(free + 1)) for free in room]
        places = (mask == shown[self.R.randint(len(shown))]).nonzero()
        middle = places[self.R.randint(len(places))].tolist()
        return [
            min(max(place - ours // 2, 0), free)
            for place, ours, free in zip(middle, self.sides, room, strict=True)
        ]
