"""Hyperparameters that methods share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

import torch
from torch import nn

from holdfast.tta.errors import InputError
from holdfast.tta.normalization import Normalization
from holdfast.tta.options import option, within

#: Devices on which torch has optimisers of one kernel since 2.4.
_FUSED = ("cpu", "cuda")


class Published(NamedTuple):
    """What a method was published with, where programs choose by network and images."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 2.5e-4
    normalization: Normalization = "batch"


@dataclass
class MethodConfig:
    """Hyperparameters of a method that learns nothing."""

    @classmethod
    def as_published(cls, **given: Any) -> Self:
        """The hyperparameters with published constants in place of ``auto``, where nothing is
        given.
        """
        return cls(**given)

    def create_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of adapted parameters; only an ``UpdateConfig`` has one."""
        raise InputError(
            f"{type(self).__name__} has no optimiser for the parameters that the method adapts: "
            "make it a subclass of UpdateConfig"
        )


@dataclass
class UpdateConfig(MethodConfig):
    """Hyperparameters of a method that takes gradient steps."""

    #: What ``auto`` stands for to ``create_method``, and to ``scaled`` where images are large.
    published = Published()

    optimizer: Literal["sgd", "adam", "auto"] = option(
        "auto", "sgd, adam, or auto: by image size, as lr=auto"
    )
    lr: float | Literal["auto"] = option(
        "auto", "learning rate, or auto: the published scaling for network and batch size"
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
    normalization: Literal[Normalization, "auto"] = option(
        "auto",
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

    @classmethod
    def as_published(cls, **given: Any) -> Self:
        """See ``MethodConfig``; a default other than ``auto`` stays."""
        chosen = {field.name for field in fields(cls) if field.metadata.get("default") == "auto"}
        constants = cls.published._asdict()
        return cls(**{**{name: constants[name] for name in chosen & constants.keys()}, **given})

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
        parameters = list(parameters)
        # One kernel for all tensors: of so many small ones, launches are what a step waits for.
        fused = all(p.is_floating_point() and p.device.type in _FUSED for p in parameters)
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.lr, fused=fused)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, fused=fused)


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
