"""Networks: MONAI architectures split into features and a linear head, with their input scaling
inside.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from monai.networks.nets import DenseNet121, ResNet, ViT
from torch import Tensor, nn

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option


@dataclass
class ModelConfig:
    """A MONAI network."""

    norm: Literal["batch", "group", "instance"] = option(
        "batch", "normalisation layers: batch, group or instance"
    )


@dataclass
class ResNetConfig(ModelConfig):
    """A MONAI ResNet; what the weights' shapes do not tell has options, for weights trained
    elsewhere.
    """

    conv1_stride: int | None = option(
        None, "stride of the first convolution; null: 2, of compact 1 (as of MONAI's own ResNet)"
    )
    max_pool: bool | None = option(
        None, "whether a max-pooling follows the first convolution; null: yes, in compact no"
    )
    shortcut: Literal["A", "B"] = option(
        "B",
        "where a block changes its size: B, a convolution; A, pooling and zeros, without weights",
    )

    def __post_init__(self) -> None:
        if self.conv1_stride is not None and self.conv1_stride not in (1, 2):
            raise InputError(f"model.conv1_stride={self.conv1_stride} must be 1 or 2")


@dataclass
class ViTConfig:
    """MONAI's vision transformer; its normalisation is LayerNorm."""

    patch_size: int = option(8, "side of a patch, in pixels; must divide the image's sides")
    hidden_size: int = option(192, "width of the tokens")
    layers: int = option(6, "transformer blocks")
    heads: int = option(3, "attention heads")

    def __post_init__(self) -> None:
        if (
            min(self.patch_size, self.hidden_size, self.layers, self.heads) < 1
            or self.hidden_size % self.heads
        ):
            raise InputError(
                "model.hidden_size must be a multiple of model.heads, and all sizes at least 1"
            )


class Network(nn.Module):
    """Standardise the channels, extract features, classify linearly.

    Args:
        features: module from images (N, channels, ...) to (N, width).
        width: D, the number of features.
        num_classes: C.
        channels: channels of the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module, width: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.features = features
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, channels, ...) scaled to [0, 1]."""
        shape = (1, -1) + (1,) * (images.dim() - 2)
        standardised = (images - self.mean.view(shape)) / self.std.view(shape)
        return self.head(self.features(standardised))


class _ViTFeatures(nn.Module):
    """The class token of MONAI's ViT."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.vit = ViT(classification=True, **arguments)
        self.vit.classification_head = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)[0]


class _ResNet(ResNet):
    """MONAI's ResNet with its normalisation in all blocks: release 1.6 leaves BatchNorm in them,
    whatever is asked for.
    """

    def __init__(self, *arguments: Any, norm: Any, **more: Any) -> None:
        self._norm = norm
        super().__init__(*arguments, norm=norm, **more)

    def _make_layer(self, *arguments: Any, **more: Any) -> nn.Sequential:
        return super()._make_layer(*arguments, **{**more, "norm": self._norm})


_NORMS: dict[str, Any] = {
    "batch": "batch",
    "group": ("group", {"num_groups": 8}),
    "instance": ("instance", {"affine": True}),
}


def stem(config: ResNetConfig, small: bool) -> tuple[int, bool]:
    """Stride of the first convolution and whether max-pooling follows, of a network for small
    images or another.
    """
    default = 1 if small else 2
    stride = default if config.conv1_stride is None else config.conv1_stride
    return stride, (not small if config.max_pool is None else config.max_pool)


def _resnet(
    block: str, layers: list[int], planes: list[int], small: bool
) -> Callable[..., tuple[nn.Module, int]]:
    def build(config: ResNetConfig, channels: int, size: tuple[int, ...]) -> tuple[nn.Module, int]:
        # The stem of a network for small images keeps their resolution.
        stride, pool = stem(config, small)
        features = _ResNet(
            block,
            layers,
            planes,
            spatial_dims=len(size),
            n_input_channels=channels,
            conv1_t_size=3 if small else 7,
            conv1_t_stride=stride,
            no_max_pool=not pool,
            shortcut_type=config.shortcut,
            feed_forward=False,
            norm=_NORMS[config.norm],
        )
        return features, planes[-1] * (4 if block == "bottleneck" else 1)

    return build


def _densenet121(
    config: ModelConfig, channels: int, size: tuple[int, ...]
) -> tuple[nn.Module, int]:
    network = DenseNet121(len(size), channels, 1, norm=_NORMS[config.norm])
    width: int = network.class_layers.out.in_features
    del network.class_layers.out
    return nn.Sequential(network.features, network.class_layers), width


def _vit(config: ViTConfig, channels: int, size: tuple[int, ...]) -> tuple[nn.Module, int]:
    if any(side % config.patch_size for side in size):
        raise InputError(
            f"model.patch_size={config.patch_size} does not divide the image size "
            f"{'x'.join(map(str, size))}"
        )
    features = _ViTFeatures(
        in_channels=channels,
        img_size=size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        mlp_dim=4 * config.hidden_size,
        num_layers=config.layers,
        num_heads=config.heads,
        spatial_dims=len(size),
    )
    return features, config.hidden_size


_WIDE = [64, 128, 256, 512]
_BUILDERS: dict[str, Callable[..., tuple[nn.Module, int]]] = {
    "compact": _resnet("basic", [1, 1, 1, 1], [16, 32, 64, 128], small=True),
    "resnet10": _resnet("basic", [1, 1, 1, 1], _WIDE, small=False),
    "resnet18": _resnet("basic", [2, 2, 2, 2], _WIDE, small=False),
    "resnet50": _resnet("bottleneck", [3, 4, 6, 3], _WIDE, small=False),
    "densenet121": _densenet121,
    "vit": _vit,
}

#: Networks by name, with the dataclass of their options.
MODELS: dict[str, type] = {
    "compact": ResNetConfig,
    "resnet10": ResNetConfig,
    "resnet18": ResNetConfig,
    "resnet50": ResNetConfig,
    "densenet121": ModelConfig,
    "vit": ViTConfig,
}


def create_network(
    kind: str, config: Any, *, num_classes: int, channels: int, size: tuple[int, ...]
) -> tuple[Network, dict[str, Any]]:
    """Build a network with fresh weights.

    Args:
        kind: a key of ``MODELS``.
        config: its options.
        num_classes: C.
        channels: channels of the images.
        size: height and width of the images; of volumes depth, height and width, which makes the
            network 3D.

    Returns:
        The network, and the plain dictionary from which ``network_from`` builds it again.
    """
    if kind not in _BUILDERS:
        raise InputError(f"unknown model {kind!r}: {closest(kind, _BUILDERS)}")
    features, width = _BUILDERS[kind](config, channels, size)
    description = {
        "kind": kind,
        "options": asdict(config),
        "num_classes": num_classes,
        "channels": channels,
        "size": list(size),
    }
    return Network(features, width, num_classes, channels), description


def lookalikes(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options under which a network would have the very same weights and compute something else.

    Args:
        description: of the network, from ``create_network``.

    Returns:
        The options that differ, of each such network: another stem of a ResNet, group in place of
        instance normalisation or the reverse, other heads of a transformer.
    """
    kind = description["kind"]
    config = MODELS[kind](**description["options"])
    if isinstance(config, ViTConfig):
        heads = [count for count in _HEADS if config.hidden_size % count == 0]
        return [{"heads": count} for count in heads if count != config.heads]
    norms: list[dict[str, Any]] = [{}]
    if config.norm != "batch":
        norms.append({"norm": "instance" if config.norm == "group" else "group"})
    stems = _other_stems(config, kind == "compact") if isinstance(config, ResNetConfig) else [{}]
    return [{**one, **other} for one in stems for other in norms if one or other]


#: How many heads transformers have.
_HEADS = (1, 2, 3, 4, 6, 8, 12, 16)


def _other_stems(config: ResNetConfig, small: bool) -> list[dict[str, Any]]:
    """What differs in each stem that a ResNet could have; first nothing, which is its own."""
    stride, pool = stem(config, small)
    strides = [{}, {"conv1_stride": 3 - stride}]  # the other of 1 and 2
    pools = [{}, {"max_pool": not pool}]
    return [{**one, **other} for one in strides for other in pools]


def network_from(description: Mapping[str, Any]) -> Network:
    """Build the network that ``create_network`` described."""
    kind = description["kind"]
    if kind not in MODELS:
        raise InputError(
            f"the checkpoint holds a network {kind!r} that this version does not know: "
            f"{closest(kind, MODELS)}"
        )
    network, _ = create_network(
        kind,
        MODELS[kind](**description["options"]),
        num_classes=description["num_classes"],
        channels=description["channels"],
        size=tuple(description["size"]),
    )
    return network
