"""MONAI's classification networks, split into features and a linear head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.networks.nets import DenseNet121, EfficientNetBN, ResNet, ViT
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.networks.settings import NORMS, ModelConfig
from holdfast.tta.options import option


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
    qkv_bias: bool = option(False, "whether queries, keys and values have biases (others: true)")
    epsilon: float = option(1e-5, "of its LayerNorms (timm, torchvision, DINOv2: 1e-6)")
    pool: Literal["token", "token_mean"] = option(
        "token", "features: the class token, or with it the mean of the others (DINOv2)"
    )

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"model.epsilon={self.epsilon} must be above 0")
        if (
            min(self.patch_size, self.hidden_size, self.layers, self.heads) < 1
            or self.hidden_size % self.heads
        ):
            raise InputError(
                "model.hidden_size must be a multiple of model.heads, and all sizes at least 1"
            )


@dataclass
class EfficientNetConfig:
    """MONAI's EfficientNet; its normalisation is BatchNorm."""

    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = option(
        "b0", "size of the network"
    )


class _ViTFeatures(nn.Module):
    """MONAI's ViT up to its head: the class token, and where asked for the mean of the others."""

    def __init__(self, epsilon: float, pool: str, **arguments: Any) -> None:
        super().__init__()
        self.vit = ViT(classification=True, **arguments)
        del self.vit.classification_head  # then it gives all tokens
        self.pool = pool
        for layer in self.vit.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = epsilon

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.vit(images)[0]
        first = tokens[:, 0]
        return torch.cat([first, tokens[:, 1:].mean(1)], 1) if self.pool != "token" else first


class _ResNet(ResNet):
    """MONAI's ResNet with its normalisation in all blocks: release 1.6 leaves BatchNorm in them,
    whatever is asked for.
    """

    def __init__(self, *arguments: Any, norm: Any, **more: Any) -> None:
        self._norm = norm
        super().__init__(*arguments, norm=norm, **more)

    def _make_layer(self, *arguments: Any, **more: Any) -> nn.Sequential:
        return super()._make_layer(*arguments, **{**more, "norm": self._norm})


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
            norm=NORMS[config.norm],
        )
        return features, planes[-1] * (4 if block == "bottleneck" else 1)

    return build


def _densenet121(
    config: ModelConfig, channels: int, size: tuple[int, ...]
) -> tuple[nn.Module, int]:
    network = DenseNet121(len(size), channels, 1, norm=NORMS[config.norm])
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
        config.epsilon,
        config.pool,
        in_channels=channels,
        img_size=size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        mlp_dim=4 * config.hidden_size,
        num_layers=config.layers,
        num_heads=config.heads,
        qkv_bias=config.qkv_bias,
        spatial_dims=len(size),
    )
    return features, config.hidden_size * (1 if config.pool == "token" else 2)


def _efficientnet(
    config: EfficientNetConfig, channels: int, size: tuple[int, ...]
) -> tuple[nn.Module, int]:
    name = f"efficientnet-{config.variant}"
    network = EfficientNetBN(name, False, spatial_dims=len(size), in_channels=channels)
    width: int = network._fc.in_features
    network._fc = nn.Identity()
    return network, width


_WIDE = [64, 128, 256, 512]
BUILDERS: dict[str, tuple[type, Callable[..., tuple[nn.Module, int]]]] = {
    "compact": (ResNetConfig, _resnet("basic", [1, 1, 1, 1], [16, 32, 64, 128], small=True)),
    "resnet10": (ResNetConfig, _resnet("basic", [1, 1, 1, 1], _WIDE, small=False)),
    "resnet18": (ResNetConfig, _resnet("basic", [2, 2, 2, 2], _WIDE, small=False)),
    "resnet50": (ResNetConfig, _resnet("bottleneck", [3, 4, 6, 3], _WIDE, small=False)),
    "densenet121": (ModelConfig, _densenet121),
    "efficientnet": (EfficientNetConfig, _efficientnet),
    "vit": (ViTConfig, _vit),
}
