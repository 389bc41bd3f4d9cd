"""Networks by name: built, and built again from their description."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import nn

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.libraries import LIBRARIES, FileConfig, LibraryConfig, give_function
from holdfast.tta.networks import classifiers, segmenters
from holdfast.tta.networks.dense import DenseNetwork
from holdfast.tta.networks.modules import Network, SplitNetwork, WholeNetwork
from holdfast.tta.registry import Registry, instances_of

#: Share of a window's side that windows have in common, in networks without an option for it.
_OVERLAP = 0.25


class Architecture(NamedTuple):
    """A kind of network: the dataclass of its options, and what builds its features.

    ``build(options, channels, size)`` gives a module from images to features (N, D), and D; of a
    ``dense`` one, which answers at each pixel, to maps (N, D, *spatial) of the images' own sides.
    """

    options: type
    build: Callable[..., tuple[nn.Module, int]]
    dense: bool = False


def _check(name: str, entry: object) -> None:
    """Refuse what is no architecture, and the names of libraries."""
    instances_of(Architecture)(name, entry)
    if name in LIBRARIES:
        raise InputError(f"model={name} has a meaning already: register yours under another name")


#: The networks that come with Holdfast.
OURS = {
    **{name: Architecture(*entry) for name, entry in classifiers.BUILDERS.items()},
    **{name: Architecture(*entry, dense=True) for name, entry in segmenters.BUILDERS.items()},
}
#: Networks by name: ours, registered ones, and entry points of the group ``holdfast.networks``.
NETWORKS = Registry(
    "model",
    "holdfast.networks",
    OURS,
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
    kind: str,
    config: Any,
    *,
    num_classes: int,
    channels: int,
    size: tuple[int, ...],
    dense: bool | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Build a network with fresh weights.

    Args:
        kind: a key of ``MODELS``.
        config: its options.
        num_classes: C.
        channels: channels of the images.
        size: height and width of the images; of volumes depth, height and width, which makes the
            network 3D.
        dense: whether it is to answer at each pixel; None: as it does.

    Returns:
        The network, and the plain dictionary from which ``network_from`` builds it again.
    """
    if kind not in MODELS:
        raise InputError(f"unknown model {kind!r}: {closest(kind, MODELS)}")
    _check_density(kind, dense)
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


def _check_density(kind: str, dense: bool | None) -> None:
    """Refuse a network that answers for whole images where each pixel is asked for, or the
    reverse.
    """
    found = kind in NETWORKS and NETWORKS[kind].dense
    if dense is None or dense == found:
        return
    others = [name for name, other in NETWORKS.items() if other.dense == dense]
    ours, asked = ("each pixel", "whole images")[:: 1 if found else -1]
    raise InputError(
        f"model={kind} answers for {ours}, and the data ask for {asked}: take "
        f"model={'|'.join(others)}"
    )


def _built(
    kind: str, config: Any, num_classes: int, channels: int, size: tuple[int, ...]
) -> Network:
    if kind in NETWORKS:
        architecture = NETWORKS[kind]
        features, width = architecture.build(config, channels, size)
        if architecture.dense:
            window = getattr(config, "window", None) or size
            overlap = getattr(config, "overlap", _OVERLAP)
            return DenseNetwork(features, width, num_classes, channels, window, overlap)
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
