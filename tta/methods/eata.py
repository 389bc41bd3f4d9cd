"""EATA: ETA, held back where the source's weights mattered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.eta import ETA, ETAConfig
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.methods.tensors import Tensors
from holdfast.tta.options import option, within


@dataclass
class EATAConfig(ETAConfig):
    """Hyperparameters of EATA."""

    fisher_weight: float = option(
        1.0, "weight of the regulariser; published: 1 for 10 and 100 classes, 2000 for 1000"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "fisher_weight", 0, float("inf"), right=False)


class EATA(ETA):
    """ETA's loss and the squared distance to the source's weights, each by its Fisher
    information.
    """

    Config: ClassVar[type[MethodConfig]] = EATAConfig
    config: EATAConfig
    fisher: Tensors
    uses: ClassVar[tuple[str, ...]] = ("fisher",)

    def register_state(self) -> None:
        """ETA's, and the check that the Fisher information fits."""
        super().register_state()
        fisher: Mapping[str, Tensor] = self.known("fisher")
        for name, parameter in self.adapted.items():
            if name not in fisher or fisher[name].shape != parameter.shape:
                raise InputError(
                    f"fisher has no tensor of shape {tuple(parameter.shape)} for {name}: it needs "
                    "one for every adapted "
                    "parameter; train.py writes it for the normalisation layers of its own network"
                )
        self.fisher = Tensors({name: fisher[name].to(p) for name, p in self.adapted.items()})

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """ETA's loss, regularised."""
        loss = super().objective(images, prediction)
        if loss is None:
            return None
        fisher = self.fisher.values()
        penalties = [
            (fisher[name] * (p - self.source_values[name]).square()).sum()
            for name, p in self.adapted.items()
        ]
        return loss + self.config.fisher_weight * torch.stack(penalties).sum()
