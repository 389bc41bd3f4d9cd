"""Networks of other libraries, and of a user's own file, by name."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.options import option

Size = tuple[int, ...]
#: What a user's function may ask for by the names of its parameters.
_PASSED = ("num_classes", "channels", "size")
#: Arguments by which libraries fetch or load weights: ``weights=`` does, of tensors alone.
_FETCHING = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("pretrained_strict", "weights", "weights_backbone"),
}
#: Mean and deviation of ImageNet's images, by which torchvision's networks were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass
class LibraryConfig:
    """A network of another library, which must be installed: model=timm:NAME, torchvision:NAME."""

    name: str = option("", "the network's name in its library; model=timm:NAME says it shorter")
    head: str | None = option(
        None, "name of its classifier, a Linear layer; null: the last of as many outputs as classes"
    )
    output: int | str | None = option(
        None,
        "which output holds the logits where there are several: its position or name; null: the "
        "first of a value for each class",
    )
    arguments: dict[str, Any] = option({}, "further arguments for whoever builds it")

    def __post_init__(self) -> None:
        fetching = sorted(_FETCHING & self.arguments.keys())
        if fetching:
            raise InputError(
                f"model.arguments has {', '.join(fetching)}: weights are given by weights=FILE"
            )


@dataclass
class FileConfig(LibraryConfig):
    """A network that a function of your own builds: model=FILE.py:function.

    It is called with those of ``num_classes``, ``channels`` and ``size`` that it has parameters
    for.
    """

    name: str = option("", "FILE.py:function; model=FILE.py:function says it shorter")


@dataclass(frozen=True)
class Library:
    """Where networks come from.

    Attributes:
        build: makes one from its options, classes, channels and sides of the images.
        scaling: mean and deviation by which its networks are usually trained; None: not known.
    """

    build: Callable[[Any, int, int, Size], nn.Module]
    scaling: Callable[[str], tuple[tuple[float, ...], tuple[float, ...]] | None]


def find_classifier(model: nn.Module, num_classes: int, name: str | None = None) -> str:
    """Name of the Linear layer that classifies: the given one, or the last of C outputs, or of one
    where there are two classes; empty where the network is that layer.

    Raises:
        InputError: there is none, or the named one is no Linear layer.
    """
    linear = {key: part for key, part in model.named_modules() if isinstance(part, nn.Linear)}
    if name is not None:
        if name not in linear:
            raise InputError(
                f"model.head={name} is no Linear layer of the network: {closest(name, linear)}"
            )
        _check_width(linear[name], name, num_classes)
        return name
    wanted = [num_classes, 1] if num_classes == 2 else [num_classes]
    for width in wanted:
        fitting = [key for key, part in linear.items() if part.out_features == width]
        if fitting:
            return fitting[-1]
    last = list(linear)[-1:]
    shown = f"; its last, {last[0]}, has {linear[last[0]].out_features}" if last else ""
    raise InputError(
        f"the network has no Linear layer of {num_classes} outputs, one for each class{shown}: "
        "build it for as many classes, or name its classifier, model.head=NAME"
    )


def _check_width(layer: nn.Linear, name: str, num_classes: int) -> None:
    width = layer.out_features
    if width != num_classes and (width, num_classes) != (1, 2):
        raise InputError(
            f"model.head={name} has {width} output(s), and the data {num_classes} classes: build "
            "the network for as many"
        )


def picked(answer: Any, output: int | str | None) -> Any:
    """The part of a network's answer that was asked for; all of it where none was.

    Raises:
        InputError: there is no such part.
    """
    if output is None:
        return answer
    try:
        return answer[output]
    except (KeyError, IndexError, TypeError) as error:
        parts = f"{len(answer)} parts" if isinstance(answer, tuple | list) else "one tensor"
        names = ", ".join(map(str, answer)) if isinstance(answer, Mapping) else parts
        raise InputError(
            f"model.output={output} is not among what the network answers ({names}): name one"
        ) from error


# timm


def _timm(config: LibraryConfig, num_classes: int, channels: int, size: Size) -> nn.Module:
    timm = _library("timm", "timm")
    _named(config, "timm", timm.list_models)
    _flat("timm", size)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    facts = timm.get_pretrained_cfg(config.name)
    if facts is not None and facts.fixed_input_size:
        arguments["img_size"] = size
    arguments |= config.arguments
    with _refusals(config.name):
        model: nn.Module = timm.create_model(config.name, pretrained=False, **arguments)
    return model


def _timm_scaling(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    facts = _library("timm", "timm").get_pretrained_cfg(name)
    return None if facts is None else (tuple(facts.mean), tuple(facts.std))


# torchvision


def _torchvision(config: LibraryConfig, num_classes: int, channels: int, size: Size) -> nn.Module:
    models = _library("torchvision.models", "torchvision")
    _named(config, "torchvision", models.list_models)
    arguments: dict[str, Any] = {"num_classes": num_classes, **config.arguments}
    if config.name.startswith("vit_"):
        if len(set(size)) > 1:
            raise InputError(
                "torchvision's vision transformers take square images: data.size=N, or model=timm:…"
            )
        arguments.setdefault("image_size", size[0])
    with _refusals(config.name):
        model: nn.Module = models.get_model(config.name, weights=None, **arguments)
    if channels != 3:
        _take_channels(model, channels)
    return model


def _take_channels(model: nn.Module, channels: int) -> None:
    """Put a first convolution of other channels into a network for colour images."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d) and layer.in_channels == 3:
            keys = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            same = {key: getattr(layer, key) for key in keys}
            has_bias = layer.bias is not None
            new = type(layer)(channels, layer.out_channels, **same, bias=has_bias)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, new)
            return
    raise InputError("the network takes colour images alone: data.channels=3")


# A user's own file

#: Functions of files that the user named in this process, by their own name. A checkpoint names
#: its file too, but code is never run because a checkpoint says so.
_GIVEN: dict[str, Callable[..., nn.Module]] = {}
#: The variable by which a user names one to all programs, processes of their own among them.
_GIVEN_BY = "HOLDFAST_MODEL"


def give_function(named: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Let checkpoints of this function's networks be built in this process.

    Args:
        named: ``FILE.py:function``, or the function itself.

    Raises:
        InputError: there is no such file or function, or the file does not run.
    """
    if callable(named):
        _GIVEN[named.__name__] = named
        return named
    file, _, name = named.rpartition(":")
    path = Path(file).expanduser()
    if not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"model={named} is not of the form FILE.py:function")
    if not path.is_file():
        raise InputError(f"model={named}: the file {path} does not exist")
    function = getattr(_executed(path), name, None)
    if not callable(function):
        raise InputError(f"model={named}: {path} has no function {name}")
    _GIVEN[name] = function
    return function


def _executed(path: Path) -> ModuleType:
    """The module of a file, which may import what lies beside it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is anybody's code
        raise InputError(f"{path} does not run ({said(error)}): mend it") from error
    finally:
        sys.path.remove(folder)
    return module


def _file(config: FileConfig, num_classes: int, channels: int, size: Size) -> nn.Module:
    name = config.name.rpartition(":")[2]
    if name not in _GIVEN and os.environ.get(_GIVEN_BY):
        give_function(os.environ[_GIVEN_BY])
    if name not in _GIVEN:
        raise InputError(
            f"the source's network is built by {config.name}, and code is never run because a "
            f"checkpoint names it: name it yourself, model={config.name}, for programs without "
            f"this option {_GIVEN_BY}={config.name} in the environment, or in Python "
            "SourceCheckpoint.load(PATH, model=FUNCTION)"
        )
    function = _GIVEN[name]
    facts = dict(zip(_PASSED, (num_classes, channels, size), strict=True))
    parameters = inspect.signature(function).parameters
    with _refusals(config.name):
        passed = {key: value for key, value in facts.items() if key in parameters}
        model = function(**{**passed, **config.arguments})
    if not isinstance(model, nn.Module):
        raise InputError(f"{config.name} gives no torch.nn.Module: let it return the network")
    return model


# What they share


def _library(name: str, extra: str) -> ModuleType:
    """An optional library.

    Raises:
        InputError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"model={extra}:NAME needs {extra}: pip install 'holdfast[{extra}]'"
        ) from error
    except RuntimeError as error:  # operators of a torch that is not this one
        raise InputError(
            f"{extra} does not load ({said(error)}): install torchvision from where torch came "
            f"from, built for torch {torch.__version__}"
        ) from error


def _named(config: LibraryConfig, library: str, listed: Callable[[], list[str]]) -> None:
    """Refuse a name that the library has not got."""
    if not config.name:
        raise InputError(f"model={library} names no network: model={library}:NAME")
    base = config.name.partition(".")[0]  # timm's names may end in that of their weights
    known = listed()
    if base not in known:
        alike = get_close_matches(base, known, 5, 0.0)  # of more than a thousand names
        raise InputError(
            f"{library} has no network {config.name!r}: the nearest are {', '.join(alike)}"
        )


def _flat(library: str, size: Size) -> None:
    if len(size) != 2:
        raise InputError(
            f"{library} has networks of images, not of volumes: model=resnet18 takes these"
        )


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What a builder does not like is the user's to mend."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # it is anybody's code
        raise InputError(
            f"model={name} cannot be built ({said(error)}): check model.arguments"
        ) from error


LIBRARIES: dict[str, Library] = {
    "timm": Library(_timm, _timm_scaling),
    "torchvision": Library(_torchvision, lambda name: IMAGENET),
    "file": Library(_file, lambda name: None),
}


def scaling_of(kind: str, name: str, channels: int) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation by which networks of this name are usually trained; None: not known.

    Of colour images' three, a grey image's one is the mean.
    """
    known = LIBRARIES[kind].scaling(name) if kind in LIBRARIES else None
    if known is None:
        return None
    mean, std = (torch.tensor(values) for values in known)
    if len(mean) != channels:
        mean, std = (values.mean().expand(channels).clone() for values in (mean, std))
    return mean, std
