"""Networks that answer at each pixel or voxel, whatever the size of the image."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.networks.modules import Network
from holdfast.tta.normalization import depends_on_batch
from holdfast.tta.windows import slide

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


class DenseNetwork(Network):
    """A network in two parts: a map of features of the image's sides, and a head on each pixel.

    Images larger than the window are seen window by window; where windows overlap, features are
    averaged, which comes to averaging logits, since the head is linear.

    Args:
        features: module from images (N, channels, *spatial) to maps (N, width, *spatial).
        width: D, the number of features of a pixel.
        num_classes: C.
        channels: channels of the images.
        window: sides of a window, H, W or D, H, W.
        overlap: share of a window's side that it has in common with the next, in [0, 1).
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        num_classes: int,
        channels: int,
        window: Sequence[int],
        overlap: float = 0.25,
    ) -> None:
        super().__init__(channels, "head")
        self.features = features
        self.head = _CONVOLUTIONS[len(window)](width, num_classes, 1)
        self.window, self.overlap = tuple(window), overlap

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, *spatial) of images (N, channels, *spatial) scaled to [0, 1]."""
        together = depends_on_batch(self.features)
        given = (self.standardised(images), self.window, self.overlap)
        return self.head(slide(self.features, *given, together=together))


class Padded(nn.Module):
    """A network that takes only sides that its stride divides, for images of any.

    They grow at both ends by what lies at their border, which changes the statistics of a batch
    less than zeros would, and the maps are cut back.

    >>> Padded(nn.MaxPool2d(2), (4, 4)).room((9, 16))
    ((1, 2), (0, 0))

    Args:
        network: from (N, channels, *spatial) to maps (N, width, *spatial).
        stride: of its coarsest level, for each axis.
    """

    def __init__(self, network: nn.Module, stride: Sequence[int]) -> None:
        super().__init__()
        self.network, self.stride = network, tuple(stride)

    def room(self, sides: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """How much is added before and behind each axis.

        The coarsest level keeps two pixels a side: of one there are no statistics.
        """
        found = []
        for side, stride in zip(sides, self.stride, strict=True):
            missing = max(2, math.ceil(side / stride)) * stride - side
            found.append((missing // 2, missing - missing // 2))
        return tuple(found)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, width, *spatial) of images (N, channels, *spatial)."""
        room = self.room(images.shape[2:])
        if not any(map(any, room)):
            return self.network(images)
        ends = [end for before, behind in reversed(room) for end in (before, behind)]
        maps: Tensor = self.network(F.pad(images, ends, mode="replicate"))
        for axis, (before, _) in enumerate(room, start=2):
            maps = maps.narrow(axis, before, images.shape[axis])
        return maps
