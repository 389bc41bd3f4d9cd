"""Convolutions of a single volume, which torch runs slowly on CPUs."""

from torch import Tensor, cat, float32, nn
from torch.nn import functional

#: Channels · depth · height of a single volume up to which torch 2.13 leaves a convolution on CPUs
#: to its own loop, which takes up to 13 times as long as oneDNN's (``ConvParams::use_mkldnn``).
_SLOW = 20480


class HalvedConv3d(nn.Conv3d):
    """A convolution that sees a single volume on a CPU as a batch of its two halves.

    The answer is the same but for rounding, and a step up to ten times as fast: of two volumes
    torch leaves none to its slow loop. Where nothing is gained, it is torch's own.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Volumes (N, channels, depth, height, width) to those of the layer's output."""
        return self._halved(images) if self._gains(images) else super().forward(images)

    def _gains(self, images: Tensor) -> bool:
        if images.device.type != "cpu" or images.dtype != float32 or len(images) != 1:
            return False
        return images.dim() == 5 and images[0, :, :, :, 0].numel() <= _SLOW

    def _halved(self, images: Tensor) -> Tensor:
        before, *beside = (int(side) for side in self.padding)
        overlap = self.kernel_size[0] - 1
        depth = images.shape[2] + 2 * before - overlap
        half = (depth + 1) // 2
        padded = functional.pad(images, (0, 0, 0, 0, before, before + 2 * half - depth))
        halves = cat([padded[:, :, : half + overlap], padded[:, :, half:]])
        answer = functional.conv3d(halves, self.weight, self.bias, 1, (0, *beside))
        return cat([answer[:1], answer[1:, :, : depth - half]], 2)


def halve_single_volumes(model: nn.Module) -> None:
    """Make the model's plain 3D convolutions ``HalvedConv3d``: of stride 1, padded by zeros. Names
    and weights stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv3d and _is_plain(module):
            module.__class__ = HalvedConv3d


def _is_plain(convolution: nn.Conv3d) -> bool:
    """Whether halves can be told to a convolution; those of 1x1x1 gain nothing."""
    return (
        set(convolution.stride) == set(convolution.dilation) == {1}
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and max(convolution.kernel_size[1:]) > 1
    )
