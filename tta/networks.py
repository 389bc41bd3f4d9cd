"""Networks, with their input scaling inside: MONAI's, split into features and a linear head, and
those of other libraries or of a user's own file, whole.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from monai.networks.nets import DenseNet121, EfficientNetBN, ResNet, ViT
from torch import Tensor, nn

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.libraries import (
    LIBRARIES,
    FileConfig,
    LibraryConfig,
    find_classifier,
    give_function,
    picked,
)
from holdfast.tta.options import option
from holdfast.tta.outputs import as_logits
from holdfast.tta.registry import Registry, instances_of


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


class Network(nn.Module):
    """Standardise the channels, then say of images to which class they belong.

    Args:
        channels: channels of the images.
        head_name: name of the Linear layer that classifies; its input counts as features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, head_name: str) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.head_name = head_name

    @property
    def classifier(self) -> nn.Linear:
        """The layer of ``head_name``."""
        layer = self.get_submodule(self.head_name)
        assert isinstance(layer, nn.Linear)
        return layer

    def standardised(self, images: Tensor) -> Tensor:
        """Images (N, channels, ...) scaled to [0, 1], by the network's mean and deviation."""
        shape = (1, -1) + (1,) * (images.dim() - 2)
        return (images - self.mean.view(shape)) / self.std.view(shape)


class SplitNetwork(Network):
    """A network in two parts.

    Args:
        features: module from images (N, channels, ...) to (N, width).
        width: D, the number of features.
        num_classes: C.
        channels: channels of the images.
    """

    def __init__(self, features: nn.Module, width: int, num_classes: int, channels: int) -> None:
        super().__init__(channels, "head")
        self.features = features
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, channels, ...) scaled to [0, 1]."""
        return self.head(self.features(self.standardised(images)))


class WholeNetwork(Network):
    """A network as somebody else made it, which answers with logits or with what holds them.

    Args:
        model: from images (N, channels, ...).
        num_classes: C.
        channels: channels of the images.
        head: name of its classifier; None: a Linear layer of C outputs.
        output: which of its outputs holds the logits, by position or name; None: the first (N, C).

    Raises:
        InputError: it has no such classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        channels: int,
        head: str | None = None,
        output: int | str | None = None,
    ) -> None:
        found = find_classifier(model, num_classes, head)
        super().__init__(channels, f"model.{found}" if found else "model")
        self.model = model
        self.num_classes, self.output = num_classes, output

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, channels, ...) scaled to [0, 1]."""
        answer = picked(self.model(self.standardised(images)), self.output)
        return as_logits(answer, self.num_classes)


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
_BUILDERS: dict[str, Callable[..., tuple[nn.Module, int]]] = {
    "compact": _resnet("basic", [1, 1, 1, 1], [16, 32, 64, 128], small=True),
    "resnet10": _resnet("basic", [1, 1, 1, 1], _WIDE, small=False),
    "resnet18": _resnet("basic", [2, 2, 2, 2], _WIDE, small=False),
    "resnet50": _resnet("bottleneck", [3, 4, 6, 3], _WIDE, small=False),
    "densenet121": _densenet121,
    "efficientnet": _efficientnet,
    "vit": _vit,
}

_OPTIONS: dict[str, type] = {
    "compact": ResNetConfig,
    "resnet10": ResNetConfig,
    "resnet18": ResNetConfig,
    "resnet50": ResNetConfig,
    "densenet121": ModelConfig,
    "efficientnet": EfficientNetConfig,
    "vit": ViTConfig,
}


class Architecture(NamedTuple):
    """A kind of network: the dataclass of its options, and what builds its features.

    ``build(options, channels, size)`` gives a module from images to features (N, D), and D.
    """

    options: type
    build: Callable[..., tuple[nn.Module, int]]


def _check(name: str, entry: object) -> None:
    """Refuse what is no architecture, and the names of libraries."""
    instances_of(Architecture)(name, entry)
    if name in LIBRARIES:
        raise InputError(f"model={name} has a meaning already: register yours under another name")


#: Networks by name: ours, registered ones, and entry points of the group ``holdfast.networks``.
NETWORKS = Registry(
    "model",
    "holdfast.networks",
    {name: Architecture(options, _BUILDERS[name]) for name, options in _OPTIONS.items()},
    _check,
)
#: The dataclass of each one's options, by name, as configurations take it; and of libraries.
MODELS: Mapping[str, type] = NETWORKS.view(
    lambda architecture: architecture.options,
    timm=LibraryConfig,
    torchvision=LibraryConfig,
    file=FileConfig,
)
register_network = NETWORKS.register


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
    if kind not in MODELS:
        raise InputError(f"unknown model {kind!r}: {closest(kind, MODELS)}")
    if kind == "file":
        give_function(config.name)
    network = _built(kind, config, num_classes, channels, size)
    options = asdict(config)
    if isinstance(network, WholeNetwork):
        _check_answer(network, config.name, channels, size)
        # Whatever rule finds the classifier later, it is this one.
        options["head"] = network.head_name.removeprefix("model").lstrip(".")
    description = {
        "kind": kind,
        "options": options,
        "num_classes": num_classes,
        "channels": channels,
        "size": list(size),
    }
    return network, description


def _built(
    kind: str, config: Any, num_classes: int, channels: int, size: tuple[int, ...]
) -> Network:
    if kind in NETWORKS:
        features, width = NETWORKS[kind].build(config, channels, size)
        return SplitNetwork(features, width, num_classes, channels)
    model = LIBRARIES[kind].build(config, num_classes, channels, size)
    return WholeNetwork(model, num_classes, channels, config.head, config.output)


@torch.no_grad()
def _check_answer(network: Network, name: str, channels: int, size: tuple[int, ...]) -> None:
    """Refuse a network that does not answer to images of the data's form.

    Raises:
        InputError: it fails on them, or gives no logits.
    """
    try:
        network.eval()(torch.zeros(2, channels, *size))
    except InputError as error:
        raise InputError(
            f"model={name}: {error}; model.output=NAME says which output holds them"
        ) from error
    except Exception as error:  # it is anybody's code
        raise InputError(
            f"model={name} does not take images of {channels} channel(s) and "
            f"{'x'.join(map(str, size))} ({said(error)}): give images as it takes them, data.size "
            "and data.channels, or build it for these by model.arguments"
        ) from error
    finally:
        network.train()


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
    if not isinstance(config, ViTConfig | ModelConfig):
        return []
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
    """Build the network that ``create_network`` described.

    Raises:
        InputError: it cannot be built here; of a user's file, it was not named in this process.
    """
    kind = description["kind"]
    if kind not in MODELS:
        raise InputError(
            f"the checkpoint holds a network {kind!r} that this version does not know: "
            f"{closest(kind, MODELS)}"
        )
    return _built(
        kind,
        MODELS[kind](**description["options"]),
        description["num_classes"],
        description["channels"],
        tuple(description["size"]),
    )


#: How far probabilities of a network that is built again may be from what they were: devices round
#: otherwise, another version of a library computes something else.
_ANSWER_WITHIN = 0.02


def sealed(network: Network, description: Mapping[str, Any]) -> dict[str, Any]:
    """The description, and of code that is not ours what the network says of a fixed image.

    Another version of a library, or an edited file, may build a network of the same shapes that
    computes something else; ``check_seal`` finds out.
    """
    if description["kind"] in _BUILDERS:
        return dict(description)
    return {**description, "answer": _answer(network, description)}


def check_seal(network: Network, description: Mapping[str, Any]) -> None:
    """Refuse a network, built again with its weights, that no longer says what it said.

    Raises:
        InputError: it says something else.
    """
    expected = description.get("answer")
    if expected is None:
        return
    found = _answer(network, description)
    apart = max((abs(a - b) for a, b in zip(found, expected, strict=True)), default=0.0)
    if not apart <= _ANSWER_WITHIN:  # a NaN is not
        name = description["options"]["name"]
        raise InputError(
            f"the network {name} is not what it was when the source was trained: on a fixed image "
            f"a probability is off by {apart:.2f}: take the file or the version of the library "
            "that it was trained with"
        )


@torch.no_grad()
def _answer(network: Network, description: Mapping[str, Any]) -> list[float]:
    """Probabilities (C,) of an image that is the same everywhere: waves across all its axes."""
    count = description["channels"] * math.prod(description["size"])
    image = (torch.arange(count, dtype=torch.float64) * 0.37).sin() / 2 + 0.5
    image = image.float().reshape(1, description["channels"], *description["size"])
    mode = network.training
    logits = network.eval()(image.to(network.mean.device))
    network.train(mode)
    answer: list[float] = logits.softmax(1)[0].tolist()
    return answer
