"""Weights trained elsewhere, matched by name and shape to a network of ours."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tta.errors import InputError
from tta.foreign import kind_of, unpacks_to_more
from tta.networks import MODELS, Network, ResNetConfig, network_from

#: First parts of a name that say who held the network, not what is in it: wrappers, and how our networks and MONAI's DenseNet
#: and ViT hold their layers.
_HOLDERS = frozenset({"model", "net", "network", "encoder", "backbone", "features", "vit", "0"})
#: Parts that say nothing wherever they stand: what DataParallel and torch.compile put around a module, and the list in which
#: MONAI's DenseNet holds what torchvision's holds itself.
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
#: Where files keep the state dict, among other things.
_KEYS = ("weights", "state_dict", "model_state_dict", "model", "network", "net")
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
        beyond: those of them that lie within the network's own stages, so that the file's network does more.
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


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file: one of ours, Lightning's or MONAI's, or a plain one; nothing but tensors is ever loaded.

    Args:
        path: the file; or the folder of a MONAI bundle (``models/model.pt``) or of a run of ours (``source.ckpt``).

    Raises:
        InputError: no such file, or none that holds a state dict and loads safely.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        inside = [file / "models" / "model.pt", file / "source.ckpt"]
        file = next((candidate for candidate in inside if candidate.is_file()), inside[0])
    if not file.is_file():
        raise InputError(
            f"weights={file} does not exist: name a state dict, or the folder of a MONAI bundle"
        )
    if not file.stat().st_size:
        raise InputError(f"weights={file} is empty: copy it again")
    if zipfile.is_zipfile(file) and not any(
        name.endswith("data.pkl") for name in zipfile.ZipFile(file).namelist()
    ):
        raise InputError(f"weights={file} is an archive: unpack it, and name the bundle's folder")
    foreign = kind_of(file)
    if foreign is not None:
        raise InputError(f"weights={file} is {foreign}")
    if unpacks_to_more(file):
        raise InputError(f"weights={file} unpacks to more than its own size: torch.save it again")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types on what it does not load
        raise InputError(
            f"weights={file} does not load as weights alone (it is damaged, or a whole model or TorchScript, which hold code): "
            "save its state dict, torch.save(model.state_dict(), FILE)"
        ) from error
    tensors = _state_dict(content)
    if not tensors:
        raise InputError(
            f"weights={file} holds no state dict: save one, torch.save(model.state_dict(), FILE)"
        )
    return tensors


def match(network: Network, tensors: Mapping[str, Tensor]) -> Match:
    """Pair a file's tensors with the network's by name, whoever held them, and compare their shapes.

    Raises:
        InputError: two tensors have one name but for their holders, as a model and its moving average.
    """
    theirs: dict[str, str] = {}
    for name in tensors:
        other = theirs.setdefault(_plain(name), name)
        if other != name:
            raise InputError(
                f"weights= hold both {other} and {name}, which are one layer's: save the state dict of one network"
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


def adopt(
    network: Network,
    path: str | Path,
    *,
    description: Mapping[str, Any] | None = None,
    order: Sequence[int] | None = None,
    outputs: int = 0,
) -> Match:
    """Put a file's weights into the network; a file's one logit becomes the second of two classes.

    Args:
        network: of the kind that the weights were trained as.
        path: as ``read_weights`` takes it.
        description: of the network, from ``create_network``, so that a refusal can name what would fit.
        order: which of the file's outputs each class is; None: they are in the classes' order.
        outputs: how many outputs the file should have; looked at where there is an ``order``.

    Raises:
        InputError: something that the network needs is missing, of another shape (the sentence holds the report) or no number.
    """
    tensors = with_head(read_weights(path), network.head.out_features, order, outputs)
    result = match(network, tensors)
    heads = {name for name in result.misshapen if name.startswith("head.")}
    if heads and not result.missing and heads == set(result.misshapen):
        theirs, ours = (shape[0] for shape in result.misshapen[heads.pop()])
        raise InputError(
            f"weights={path} fits but for its head, which tells {theirs} classes where the data has {ours}: "
            "give images with the classes that the network was trained on, or name its outputs in their order, "
            "weights_classes=[...]"
        )
    channels = [shapes for shapes in result.misshapen.values() if _differ_in_channels(*shapes)]
    if not result.missing and ("mean" in result.misshapen or channels):
        theirs, ours = (
            (shape[1] for shape in channels[0])
            if channels
            else (shape[0] for shape in result.misshapen["mean"])
        )
        raise InputError(
            f"weights={path} was trained on images of {theirs} channel(s), and the data's have {ours}: give images with as many"
        )
    if not result.fits:
        raise InputError(
            f"weights={path} does not fit the network ({result}): {_remedy(tensors, result, description)}"
        )
    for name, value in network.state_dict().items():
        given = result.found.get(name)
        if given is None or not value.is_floating_point():
            continue
        if not given.is_floating_point():
            raise InputError(
                f"weights={path}: {name} holds {given.dtype}, not floating-point numbers: save them before quantisation"
            )
        if not given.isfinite().all():
            raise InputError(
                f"weights={path}: {name} holds values that are not finite: take an earlier checkpoint"
            )
    network.load_state_dict(result.found, strict=False)
    return result


def with_head(
    tensors: Mapping[str, Tensor], num_classes: int, order: Sequence[int] | None, outputs: int
) -> dict[str, Tensor]:
    """A file's tensors with the outputs of the last layer in the order of the classes, one logit being two.

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
                f"weights_classes names {outputs} outputs, and the file's last layer has {len(value)}: name each, in order"
            )
        result[name] = value if order is None else value[list(order)]
    return result


def _remedy(
    tensors: Mapping[str, Tensor], result: Match, description: Mapping[str, Any] | None
) -> str:
    """What to do where tensors don't fit, as far as it can be told: networks are built and compared."""
    fitting = [] if description is None else _fitting(tensors, description)
    if fitting:
        return f"it fits {' or '.join(fitting)}"
    return (
        f"it is none of model={'|'.join(MODELS)} of the default sizes either; give the sizes that "
        "it was trained with, or adapt the network itself in Python, create_method(NAME, network, "
        "num_classes=C)"
    )


def _fitting(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> list[str]:
    words = []
    for kind, options in MODELS.items():
        for changed in ({}, {"shortcut": "A"}) if options is ResNetConfig else ({},):
            try:
                network = network_from({**description, "kind": kind, "options": changed})
            except InputError:  # a network that images of this size can't have
                continue
            result = match(network, tensors)
            if result.fits:
                more = "".join(f" model.{name}={value}" for name, value in changed.items())
                words.append(f"model={kind}{more}")
    return words


def _differ_in_channels(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Whether two shapes are of a first convolution for images of other channels: no other layer takes in 1 or 3."""
    alike = len(theirs) == len(ours) > 2 and theirs[0] == ours[0] and theirs[2:] == ours[2:]
    return alike and {theirs[1], ours[1]} <= {1, 2, 3, 4}


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the part that holds them."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    inner = next((content[key] for key in _KEYS if isinstance(content.get(key), Mapping)), None)
    return tensors if inner is None else _state_dict(inner)


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
