"""A file's tensors paired with a network's, by name and shape, whoever held them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.networks import Network

#: First parts of a name that say who held the network, not what is in it: wrappers, and how our
#: networks and MONAI's DenseNet and ViT hold their layers.
_HOLDERS = frozenset({"model", "net", "network", "encoder", "backbone", "features", "vit", "0"})
#: Parts that say nothing wherever they stand: what DataParallel and torch.compile put around a
#: module, and the list in which MONAI's DenseNet holds what torchvision's holds itself.
_SILENT = frozenset({"module", "_orig_mod", "layers"})
#: What MONAI's networks, and others after them, call the last layer.
_HEADS = (
    "fc",
    "class_layers.out",
    "classification_head.0",
    "classification_head",
    "classifier",
    "head",
)
#: What a network can do without: its input scaling has a default, and nothing counts batches.
_OPTIONAL = ("mean", "std", "num_batches_tracked")
#: A bias that MONAI's ResNets have and others, torchvision's too, do not: absent, it is 0.
_ZERO = "downsample.0.bias"


@dataclass(frozen=True)
class Match:
    """How a file's tensors fit a network.

    Attributes:
        found: those that fit, by the network's names; biases that the file does without are 0.
        missing: names of the network that the file has not got.
        unused: names of the file that the network has no place for.
        beyond: those of them that lie within the network's own stages, so that the file's network
            does more.
        misshapen: the file's and the network's shape, by the network's names.
    """

    found: dict[str, Tensor]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    beyond: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the file is of such a network, nothing less and nothing more."""
        return not (self.missing or self.misshapen or self.beyond)

    def __str__(self) -> str:
        parts = [
            f"{len(self.found)} tensors matched",
            f"{len(self.missing)} missing{_listed(self.missing)}",
            f"{len(self.unused)} left over{_listed(self.unused)}",
            f"{len(self.misshapen)} of another shape"
            + _listed(
                [
                    f"{name} {_times(theirs)}, not {_times(ours)}"
                    for name, (theirs, ours) in self.misshapen.items()
                ]
            ),
        ]
        return ", ".join(parts)


def match(network: Network, tensors: Mapping[str, Tensor]) -> Match:
    """Pair a file's tensors with the network's by name, whoever held them, and compare their
    shapes.

    Raises:
        InputError: two tensors have one name but for their holders, as a model and its moving
            average.
    """
    theirs: dict[str, str] = {}
    for name in tensors:
        other = theirs.setdefault(_plain(name), name)
        if other != name:
            raise InputError(
                f"weights= hold both {other} and {name}, which are one layer's: save the state "
                "dict of one network"
            )
    found, missing, misshapen, used = {}, [], {}, set()
    for name, value in network.state_dict().items():
        given = theirs.get(_plain(name))
        used.add(given)
        if given is None and name.endswith(_ZERO) and name.replace("bias", "weight") in found:
            found[name] = torch.zeros_like(value)
        elif given is None:
            missing.append(name)
        elif tensors[given].shape != value.shape:
            misshapen[name] = (tuple(tensors[given].shape), tuple(value.shape))
        else:
            found[name] = tensors[given]
    needed = tuple(name for name in missing if name.split(".")[-1] not in _OPTIONAL)
    unused = tuple(name for name in tensors if name not in used)
    stages = {_plain(name).split(".")[0] for name in network.state_dict()}
    beyond = tuple(
        name
        for name in unused
        if _plain(name).split(".")[0] in stages and name.split(".")[-1] not in _OPTIONAL
    )
    return Match(found, needed, unused, misshapen, beyond)


def with_head(
    tensors: Mapping[str, Tensor], num_classes: int, order: Sequence[int] | None, outputs: int
) -> dict[str, Tensor]:
    """A file's tensors with the outputs of the last layer in the order of the classes, one logit
    being two.

    Raises:
        InputError: the file has not as many outputs as were named.
    """
    result = dict(tensors)
    for name, value in tensors.items():
        if not _plain(name).startswith("head.") or not value.dim():
            continue
        if len(value) == 1 and num_classes == 2:
            value = torch.cat([torch.zeros_like(value), value])
        if order is not None and len(value) != outputs:
            raise InputError(
                f"weights_classes names {outputs} outputs, and the file's last layer has "
                f"{len(value)}: name each, in order"
            )
        result[name] = value if order is None else value[list(order)]
    return result


def _plain(name: str) -> str:
    """A tensor's name without its holders, the last layer being ``head``."""
    parts = [part for part in name.split(".") if part not in _SILENT]
    while len(parts) > 1 and parts[0] in _HOLDERS:
        parts = parts[1:]
    plain = ".".join(parts)
    head = next((head for head in _HEADS if plain.startswith(f"{head}.")), None)
    return plain if head is None else f"head.{plain.removeprefix(f'{head}.')}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = list(names)[:most]
    more = ", ..." if len(names) > most else ""
    return f" ({'; '.join(shown)}{more})" if shown else ""


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
