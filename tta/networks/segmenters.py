"""MONAI's segmentation networks, 2D and 3D, split into a map of features and a head on each pixel.

Of each the last 1 × 1 convolution becomes the head, so that features are what it sees.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR
from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.networks.dense import Padded
from holdfast.tta.networks.settings import NORMS, ModelConfig
from holdfast.tta.options import option


@dataclass
class DenseConfig(ModelConfig):
    """A MONAI network that answers at each pixel."""

    width: int = option(16, "channels of its finest level, by which all others grow")
    window: list[int] | None = option(
        None,
        "sides of the windows in which larger images are seen, [H,W] or [D,H,W]; null: those of "
        "the images, or of the patches, that it was trained on",
    )
    overlap: float = option(
        0.25, "share of a window's side that it has in common with the next one"
    )

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"model.width={self.width} must be at least 1")
        if self.norm == "group" and self.width % 8:
            raise InputError(
                f"model.norm=group forms 8 groups, which model.width={self.width} cannot be cut "
                "into: take a multiple of 8"
            )
        if not 0 <= self.overlap < 1:
            raise InputError(f"model.overlap={self.overlap} must be at least 0 and below 1")
        if self.window is not None and min(self.window, default=0) < 1:
            raise InputError(f"model.window={self.window} must be sides of at least 1")


@dataclass
class DynUNetConfig(DenseConfig):
    """MONAI's DynUNet, the network of nnU-Net: levels follow from the sides of what it sees."""

    norm: Literal["batch", "group", "instance"] = option(
        "instance", "normalisation layers: batch, group or instance, as published"
    )
    width: int = option(32, "channels of its finest level, by which all others grow")


@dataclass
class SegResNetConfig(DenseConfig):
    """MONAI's SegResNet, a residual encoder with a light decoder."""

    norm: Literal["batch", "group", "instance"] = option(
        "group", "normalisation layers: batch, group, as published, or instance"
    )


@dataclass
class SwinUNETRConfig(DenseConfig):
    """MONAI's Swin UNETR; of its transformer the normalisation is LayerNorm, whatever norm says."""

    norm: Literal["batch", "group", "instance"] = option(
        "instance", "normalisation of its convolutions: batch, group or instance, as published"
    )
    width: int = option(24, "channels of its finest level, a multiple of 12 (of 24 for group)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 12:
            raise InputError(
                f"model.width={self.width} must be a multiple of 12 in Swin UNETR, whose levels "
                "have 3, 6, 12 and 24 attention heads"
            )


Built = tuple[nn.Module, int]


def _basicunet(config: DenseConfig, channels: int, size: tuple[int, ...]) -> Built:
    width = config.width
    network = BasicUNet(
        spatial_dims=len(size),
        in_channels=channels,
        features=(width, width, 2 * width, 4 * width, 8 * width, width),
        norm=NORMS[config.norm],
    )
    network.final_conv = nn.Identity()
    return Padded(network, [2**4] * len(size)), width


#: Channels of DynUNet's coarsest levels, at most, as nnU-Net has them.
_MOST = {2: 512, 3: 320}
#: Pixels that an axis keeps at least on the coarsest level, and the levels at least and at most.
_COARSEST, _FEWEST_LEVELS, _MOST_LEVELS = 4, 3, 6


def _dynunet(config: DenseConfig, channels: int, size: tuple[int, ...]) -> Built:
    strides = [[1] * len(size), *_halvings(size)]
    kernels = [[3] * len(size)] * len(strides)
    network = DynUNet(
        *(len(size), channels, 1, kernels, strides, strides[1:]),
        filters=[min(config.width * 2**level, _MOST[len(size)]) for level in range(len(strides))],
        norm_name=NORMS[config.norm],
    )
    total = [math.prod(axis) for axis in zip(*strides, strict=True)]
    # Its layers stand twice in it, and are run from here alone.
    return Padded(network.skip_layers, total), config.width


def _halvings(size: Sequence[int]) -> list[list[int]]:
    """By how much each level is coarser than the one above it: an axis is halved while it keeps
    four pixels (nnU-Net, Isensee et al., Nature Methods 2021).
    """
    sides, found = list(size), list[list[int]]()
    while len(found) + 1 < _MOST_LEVELS:
        level = [2 if side // 2 >= _COARSEST else 1 for side in sides]
        if max(level) == 1:
            break
        sides = [side // stride for side, stride in zip(sides, level, strict=True)]
        found.append(level)
    short = _FEWEST_LEVELS - 1 - len(found)
    return found + [[2] * len(sides)] * short


def _segresnet(config: DenseConfig, channels: int, size: tuple[int, ...]) -> Built:
    network = SegResNet(
        spatial_dims=len(size),
        init_filters=config.width,
        in_channels=channels,
        norm=NORMS[config.norm],
    )
    network.conv_final[-1] = nn.Identity()
    return Padded(network, [2**3] * len(size)), config.width


def _swinunetr(config: DenseConfig, channels: int, size: tuple[int, ...]) -> Built:
    network = SwinUNETR(
        *(channels, 1),
        feature_size=config.width,
        norm_name=NORMS[config.norm],
        spatial_dims=len(size),
    )
    network.out = nn.Identity()
    return Padded(network, [2**5] * len(size)), config.width


BUILDERS: dict[str, tuple[type, Callable[[Any, int, tuple[int, ...]], Built]]] = {
    "basicunet": (DenseConfig, _basicunet),
    "dynunet": (DynUNetConfig, _dynunet),
    "segresnet": (SegResNetConfig, _segresnet),
    "swinunetr": (SwinUNETRConfig, _swinunetr),
}
