"""The model of a service: adapting and guarded as in a run, or frozen."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks.base import Guard
from holdfast.export import adopted, baked, check_origin, warn_of_others
from holdfast.serving.config import ServeConfig
from holdfast.serving.graph import graph_of
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.checkpoint import SourceCheckpoint, checksum, read_adapted
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.settings import SUFFIXES

#: Endings of exported weights.
_WEIGHTS = (SUFFIXES["torch"], SUFFIXES["safetensors"])
_GRAPH, _PROGRAM = SUFFIXES["onnx"], SUFFIXES["program"]
_DEVICES = ("auto", "cpu", "cuda")
#: Hexadecimal digits of a version, as those of adapted tensors have.
_DIGITS = 16


class ServedModel(NamedTuple):
    """What serves.

    Attributes:
        module: predicts, and learns.
        guard: None where there is none.
        version: of frozen weights; None where they change, and outputs tell it.
    """

    module: AdaptationModule
    guard: Guard | None
    version: str | None


def model_of(config: ServeConfig, assembly: Assembly) -> ServedModel:
    """The model that was asked for, on its device.

    Raises:
        InputError: there is no such device, ``start`` cannot be read, or the task is none that the
            service can answer.
    """
    device = device_of(config.device)
    if config.start is not None:
        device = _check_start(config, Path(config.start).suffix, device)
    if config.serve.adapt:
        assembly.seed()
        module, guard = assembly.guarded()
        version = None
    else:
        module, version = _frozen(assembly.checkpoint, config.start)
        guard = None
    if module.method.task.dense:
        raise InputError(
            "the service answers with classes or findings, and not with masks: adapt a folder of "
            "images, python adapt.py data=folder"
        )
    return ServedModel(module.to(device), guard, version)


def device_of(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: this machine has no GPU, or it is a device of another kind.
    """
    there = torch.cuda.is_available()
    if name not in _DEVICES:
        raise InputError(f"device={name}: the service runs on {', '.join(_DEVICES)} alone")
    if name == "cuda" and not there:
        raise InputError("device=cuda: there is no GPU here that torch can use; take device=cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _frozen(checkpoint: SourceCheckpoint, start: str | None) -> tuple[AdaptationModule, str]:
    """The source, or what an adaptation made of it, and its version."""
    network, version = _network(checkpoint, start)
    method = create_method(
        "source", network, num_classes=len(checkpoint.class_names), task=checkpoint.meaning
    )
    return AdaptationModule(method, 1, screen=False), version[:_DIGITS]


def _network(checkpoint: SourceCheckpoint, start: str | None) -> tuple[nn.Module, str]:
    """The network that is served as it is, and a hash of what it is."""
    if start is None:
        return checkpoint.build(), checkpoint.hash
    file = Path(start).expanduser()
    if file.suffix in (*_WEIGHTS, _GRAPH):
        check_origin(file, checkpoint)
    if file.suffix == _GRAPH:
        return graph_of(file, checkpoint)
    if file.suffix in _WEIGHTS:
        network = adopted(file, checkpoint)
    else:
        adapted = read_adapted(start, checkpoint)
        warn_of_others(adapted.statistics)
        network = baked(checkpoint, adapted)
    return network, checksum(dict(network.state_dict()))


def _check_start(config: ServeConfig, ending: str, device: torch.device) -> torch.device:
    """Refuse what cannot be started from; returns the device that it runs on."""
    if ending == _PROGRAM:
        raise InputError(
            f"start={config.start}: torch unpickles a program to load it, which may run code, so "
            "the service takes none: export it as .safetensors, or as .onnx, which is faster"
        )
    if config.serve.adapt and ending in (*_WEIGHTS, _GRAPH):
        raise InputError(
            f"start={config.start} is exported and cannot adapt: give the run's adapted.ckpt, or "
            "serve it as it is, serve.adapt=false"
        )
    if ending != _GRAPH:
        return device
    if config.device == "cuda":
        raise InputError(
            f"start={config.start} runs on the CPU: leave device=cuda out, or serve weights, a "
            ".safetensors file"
        )
    return torch.device("cpu")
