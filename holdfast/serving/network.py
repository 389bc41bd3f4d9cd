"""The model of a service: adapting and guarded as in a run, or frozen."""

from pathlib import Path
from typing import NamedTuple

import torch

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks.base import Guard
from holdfast.export import SUFFIXES, adopted, baked, check_origin, warn_of_others
from holdfast.serving.config import ServeConfig
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.checkpoint import SourceCheckpoint, checksum, read_adapted
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method

#: Endings of exported weights.
_EXPORTED = (SUFFIXES["torch"], SUFFIXES["safetensors"])
#: Hexadecimal digits of a version, as those of adapted tensors have.
_DIGITS = 16


class Model(NamedTuple):
    """What serves.

    Attributes:
        module: predicts, and learns.
        guard: None where there is none.
        version: of frozen weights; None where they change, and outputs tell it.
    """

    module: AdaptationModule
    guard: Guard | None
    version: str | None


def model_of(config: ServeConfig, assembly: Assembly) -> Model:
    """The model that was asked for, on its device.

    Raises:
        InputError: there is no such device, ``start`` cannot be read, or the task is none that the
            service can answer.
    """
    device = device_of(config.device)
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
    return Model(module.to(device), guard, version)


def device_of(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: this machine has no GPU.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("device=cuda: there is no GPU here that torch can use; take device=cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _frozen(checkpoint: SourceCheckpoint, start: str | None) -> tuple[AdaptationModule, str]:
    """The source, or what an adaptation made of it, and its version."""
    if start is not None and Path(start).suffix in _EXPORTED:
        file = Path(start).expanduser()
        check_origin(file, checkpoint)
        network = adopted(file, checkpoint)
    else:
        adapted = None if start is None else read_adapted(start, checkpoint)
        if adapted is not None:
            warn_of_others(adapted.statistics)
        network = baked(checkpoint, adapted)
    version = checkpoint.hash if start is None else checksum(dict(network.state_dict()))
    method = create_method(
        "source", network, num_classes=len(checkpoint.class_names), task=checkpoint.meaning
    )
    return AdaptationModule(method, 1, screen=False), version[:_DIGITS]
