"""RDumb: ETA, taken back to the source every so many batches."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.eta import ETA, ETAConfig
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.options import option


@dataclass
class RDumbConfig(ETAConfig):
    """Hyperparameters of RDumb."""

    reset_every: int = option(1000, "batches between two resets")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset_every < 1:
            raise InputError(f"method.reset_every={self.reset_every} must be at least 1")


class RDumb(ETA):
    """ETA's updates with a full reset at a fixed period."""

    Config: ClassVar[type[MethodConfig]] = RDumbConfig
    config: RDumbConfig
    paper: ClassVar[str] = "Press et al., NeurIPS 2023"
    batches: Tensor

    def register_state(self) -> None:
        """ETA's, and the batches since the last reset."""
        super().register_state()
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """ETA's update; after the last batch of a period, the reset."""
        update = super().learn(images, prediction)
        self.batches += 1
        if int(self.batches) < self.config.reset_every:
            return update
        self.reset()
        return update._replace(restored=True)
