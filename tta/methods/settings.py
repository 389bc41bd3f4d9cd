"""Hyperparameters that methods share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.options import option, within


@dataclass
class MethodConfig:
    """Hyperparameters of a method that learns nothing."""

    def create_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of adapted parameters; only an ``UpdateConfig`` has one."""
        raise InputError(
            f"{type(self).__name__} has no optimiser for the parameters that the method adapts: "
            "make it a subclass of UpdateConfig"
        )


@dataclass
class UpdateConfig(MethodConfig):
    """Hyperparameters of a method that takes gradient steps."""

    optimizer: Literal["sgd", "adam", "auto"] = option(
        "sgd", "sgd, adam, or auto: chosen by adapt.py, as lr=auto"
    )
    lr: float | Literal["auto"] = option(
        2.5e-4, "learning rate, or auto: the published scaling for network and batch size"
    )
    momentum: float = option(0.9, "momentum of sgd")
    steps: int = option(
        1, "updates a batch; with more than one it leaves with the forward pass before the last"
    )
    episodic: bool = option(False, "restore the source before every batch")
    exclude: list[str] | None = option(
        None,
        "layers to leave alone, by name, e.g. [features.layer4]; []: none; null: as the method was "
        "published",
    )
    normalization: Literal["batch", "source", "blend", "robust", "median", "auto"] = option(
        "batch",
        "statistics of BatchNorm layers: batch, source, blend (of the two), robust (moving "
        "average), median, or auto: chosen "
        "by the guard as it goes",
    )
    alpha: float = option(0.1, "the batch's weight in blend and robust statistics, in (0, 1]")

    def __post_init__(self) -> None:
        if self.lr != "auto" and not 0 < self.lr < 100:
            raise InputError(f"method.lr={self.lr} is outside (0, 100)")
        within(self, "momentum", 0, 1, right=False)
        within(self, "alpha", 0, 1, left=False)
        if self.steps < 1:
            raise InputError(f"method.steps={self.steps} must be at least 1")

    def create_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of adapted parameters.

        Raises:
            InputError: it is still to be chosen, by network and image size.
        """
        if self.lr == "auto" or self.optimizer == "auto":
            raise InputError(
                "lr='auto' and optimizer='auto' stand for a choice by network and image size, "
                "which create_method does not know: give a number, and sgd or adam"
            )
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)


def check_words(config: type[MethodConfig], given: Mapping[str, Any]) -> None:
    """Refuse words that are none of a hyperparameter's, and words or None in place of a number.

    The command line's are checked as they are read; in Python nothing else would, and a typing
    error in ``optimizer`` would be an optimiser.

    Args:
        config: the method's dataclass.
        given: hyperparameters, by name.

    Raises:
        InputError: such a value.
    """
    hints = get_type_hints(config)
    for name, value in given.items():
        parts = [hints[name]] if get_origin(hints[name]) is Literal else get_args(hints[name])
        parts = list(parts) or [hints[name]]
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        others = [get_origin(part) or part for part in parts]
        kinds = [part.__name__ for part in others if isinstance(part, type)]
        misspelt = isinstance(value, str) and value not in words and "str" not in kinds
        absent = value is None and "NoneType" not in kinds
        if (misspelt or absent) and Any not in parts:
            allowed = [*words, *(kind for kind in kinds if kind != "NoneType")]
            raise InputError(f"{name}={value!r} must be one of {', '.join(allowed)}")
