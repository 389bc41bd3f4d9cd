"""Hyperparameters that methods share."""

from dataclasses import dataclass
from typing import Literal

from tta.errors import InputError
from tta.options import option, within


@dataclass
class MethodConfig:
    """Hyperparameters of a method that learns nothing."""


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
        "layers to leave alone, by name, e.g. [features.layer4]; []: none; null: as the method was published",
    )
    normalization: Literal["batch", "source", "blend", "robust", "median", "auto"] = option(
        "batch",
        "statistics of BatchNorm layers: batch, source, blend (of the two), robust (moving average), median, or auto: chosen "
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
