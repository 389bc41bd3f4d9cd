"""Weights trained elsewhere: read from a file, and put into a network of ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.foreign import is_safetensors, kind_of, unpacks_to_more
from holdfast.tta.matching import Match, match
from holdfast.tta.naming import plain
from holdfast.tta.networks import (
    MODELS,
    NETWORKS,
    ModelConfig,
    Network,
    ResNetConfig,
    network_from,
)
from holdfast.tta.safetensors import read_safetensors
from holdfast.tta.soundness import oddity_of

#: Where files keep the state dict, among other things.
_KEYS = ("weights", "state_dict", "model_state_dict", "model", "network", "net")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file: one of ours, Lightning's or MONAI's, or a plain one; nothing but
    tensors is ever loaded.

    Args:
        path: the file; or the folder of a MONAI bundle (``models/model.pt``) or of a run of ours
            (``source.ckpt``).

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
    tensors = _from_safetensors(file) if is_safetensors(file) else _from_torch(file)
    if not tensors:
        raise InputError(
            f"weights={file} holds no state dict: save one, torch.save(model.state_dict(), FILE)"
        )
    return tensors


def _from_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_safetensors(file)
    except ValueError as error:
        raise InputError(f"weights={file} is damaged, {error}: copy it again") from error


def _from_torch(file: Path) -> dict[str, Tensor]:
    foreign = kind_of(file)
    if foreign is not None:
        raise InputError(f"weights={file} is {foreign}")
    if unpacks_to_more(file):
        raise InputError(f"weights={file} unpacks to more than its own size: torch.save it again")
    try:
        return _state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises half a dozen unrelated types on what it does not load
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise InputError(
                f"weights={file} is damaged, or no file of torch: copy it again"
            ) from error
        raise InputError(
            f"weights={file} is more than weights: it holds code or objects ({found[1]}), which "
            "are never loaded: where it was made, load it and save the state dict alone, "
            "torch.save(model.state_dict(), FILE)"
        ) from error


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
        description: of the network, from ``create_network``, so that a refusal can name what would
            fit.
        order: which of the file's outputs each class is; None: they are in the classes' order.
        outputs: how many outputs the file should have; looked at where there is an ``order``.

    Raises:
        InputError: something that the network needs is missing, of another shape (the sentence
            holds the report) or no number.
    """
    tensors = read_weights(path)
    result = match(network, tensors, order, outputs)
    _refuse_misfit(path, tensors, result, description, network.head_name)
    _refuse_no_numbers(path, network, result)
    network.load_state_dict(result.found, strict=False)
    return result


def _refuse_misfit(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    result: Match,
    description: Mapping[str, Any] | None,
    head: str,
) -> None:
    heads = {name for name in result.misshapen if name.startswith(f"{head}.")}
    if heads and not result.missing and heads == set(result.misshapen):
        theirs, ours = (shape[0] for shape in result.misshapen[heads.pop()])
        raise InputError(
            f"weights={path} fits but for its head, which tells {theirs} classes where the data "
            f"has {ours}: "
            "give images with the classes that the network was trained on, or name its outputs in "
            "their order, "
            "weights_classes=[...]"
        )
    own = f"{head}."
    if result.missing and not result.misshapen and all(n.startswith(own) for n in result.missing):
        raise InputError(
            f"weights={path} fits but for its head, which it has not got: it is a backbone, which "
            "tells no classes: train a classifier on it first, and give the state dict of both"
        )
    channels = [shapes for shapes in result.misshapen.values() if _differ_in_channels(*shapes)]
    if not result.missing and ("mean" in result.misshapen or channels):
        theirs, ours = (
            (shape[1] for shape in channels[0])
            if channels
            else (shape[0] for shape in result.misshapen["mean"])
        )
        raise InputError(
            f"weights={path} was trained on images of {theirs} channel(s), and the data's have "
            f"{ours}: give images with as many"
        )
    if not result.fits:
        raise InputError(
            f"weights={path} does not fit the network ({result}): {_remedy(tensors, description)}"
        )


def _refuse_no_numbers(path: str | Path, network: Network, result: Match) -> None:
    for name, value in network.state_dict().items():
        given = result.found.get(name)
        if given is None or not value.is_floating_point():
            continue
        if oddity := oddity_of(given):
            raise InputError(f"weights={path}: {name} {oddity}: save it as a plain tensor")
        if not given.is_floating_point():
            raise InputError(
                f"weights={path}: {name} holds {given.dtype}, not floating-point numbers: save "
                "them before quantisation"
            )
        if not given.isfinite().all():
            raise InputError(
                f"weights={path}: {name} holds values that are not finite: take an earlier "
                "checkpoint"
            )


def _remedy(tensors: Mapping[str, Tensor], description: Mapping[str, Any] | None) -> str:
    """What to do where tensors don't fit, as far as it can be told: networks are built and
    compared.
    """
    fitting = [] if description is None else _fitting(tensors, description)
    if fitting:
        return f"it fits {' or '.join(fitting)}"
    family = _family(tensors)
    if family:
        return f"its names are those of {family}"
    return (
        "it is no network of model=NAME of the default sizes either; name the library's network, "
        "model=timm:NAME or model=torchvision:NAME, a function that builds it, "
        "model=FILE.py:function, or adapt it in Python, create_method(NAME, network, num_classes=C)"
    )


#: Names that only one library's networks of a family have.
_FAMILIES = {
    r"conv_stem\.": "timm's EfficientNet or MobileNet: model=timm:efficientnet_b0, or its like",
    r"_conv_stem\.": "MONAI's EfficientNet: model=efficientnet model.variant=b0, or its like",
    r"stages\.\d+\.blocks\.\d+\.conv_dw": "timm's ConvNeXt: model=timm:convnext_tiny, or its like",
    r"features\.\d+\.\d+\.layer_scale": "torchvision's ConvNeXt: "
    "model=torchvision:convnext_tiny, or its like",
    r"features\.\d+\.\d+\.block\.\d+": "torchvision's EfficientNet: "
    "model=torchvision:efficientnet_b0, or its like",
    r"layers\.\d+\.blocks\.\d+\.attn": "timm's Swin transformer: "
    "model=timm:swin_tiny_patch4_window7_224, or its like",
}


def _family(tensors: Mapping[str, Tensor]) -> str:
    """Whose networks have such names, and the option that builds them; empty where not known."""
    for pattern, family in _FAMILIES.items():
        if any(re.search(rf"(?:^|\.){pattern}", name) for name in tensors):
            return family
    return ""


def _fitting(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> list[str]:
    words = []
    dense = NETWORKS[description["kind"]].dense if description["kind"] in NETWORKS else False
    tried = _of_pixels(tensors) if dense else [*_kinds(), *_transformer(tensors)]
    for kind, changed in tried:
        try:
            network = network_from({**description, "kind": kind, "options": changed})
        except InputError:  # a network that images of this size can't have
            continue
        if match(network, tensors).fits:
            more = "".join(f" model.{name}={_typed(value)}" for name, value in changed.items())
            words.append(f"model={kind}{more}")
    return words


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kinds() -> Iterator[tuple[str, dict[str, Any]]]:
    """Networks whose tensors differ in name or shape, with the options that make the difference."""
    for kind, options in MODELS.items():
        architecture = NETWORKS.get(kind)  # libraries, and vit, are of no sizes that could be tried
        if architecture is None or architecture.dense or kind == "vit":
            continue
        norms = ("batch", "group") if issubclass(options, ModelConfig) else ("",)
        for norm in norms:
            changed = {"norm": norm} if norm == "group" else {}
            yield kind, changed
            if options is ResNetConfig:
                yield kind, {**changed, "shortcut": "A"}


def _of_pixels(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Networks of pixels as wide as the file's first convolution, under each normalisation."""
    width = next((len(value) for value in tensors.values() if value.dim() > 3), 0)
    for kind, architecture in NETWORKS.items():
        for norm in ("instance", "group", "batch") if architecture.dense else ():
            try:
                MODELS[kind](width=width, norm=norm)
            except InputError:  # a width that it cannot have
                continue
            yield kind, {"width": width, "norm": norm}


#: Channels of an attention head in published transformers.
_HEAD_WIDTH = 64


def _transformer(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The vision transformer whose sizes the tensors tell; nothing where they are none's."""
    named = {plain(name): value for name, value in tensors.items()}
    patch, head = named.get("patch_embed.proj.weight"), named.get("head.weight")
    if patch is None or head is None or patch.dim() < 4 or head.dim() != 2:
        return
    width = patch.shape[0]
    changed: dict[str, Any] = {
        "patch_size": patch.shape[-1],
        "hidden_size": width,
        "layers": len({name.split(".")[1] for name in named if name.startswith("blocks.")}),
        "heads": max(width // _HEAD_WIDTH, 1),
    }
    if any(name.startswith("blocks.0.attn.qkv.") and name.endswith("bias") for name in named):
        changed |= {"qkv_bias": True, "epsilon": 1e-6}  # as those have it that are not MONAI's
    if head.shape[1] == 2 * width:
        changed["pool"] = "token_mean"
    yield "vit", changed


def _differ_in_channels(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Whether two shapes are of a first convolution for images of other channels: no other layer
    takes in 1 or 3.
    """
    alike = len(theirs) == len(ours) > 2 and theirs[0] == ours[0] and theirs[2:] == ours[2:]
    return alike and {theirs[1], ours[1]} <= {1, 2, 3, 4}


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the part that holds them."""
    inner = content if isinstance(content, Mapping) else None
    while inner is not None:
        content = inner
        inner = next((content[key] for key in _KEYS if isinstance(content.get(key), Mapping)), None)
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
