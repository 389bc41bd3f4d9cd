"""Running statistics that go on running on the target, nothing learned."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import Statistics, statistics
from holdfast.tta.options import option, within


@dataclass
class NormEMAConfig(MethodConfig):
    """How fast the statistics follow the target."""

    momentum: float = option(0.1, "weight of the new batch in the running statistics, in (0, 1]")

    def __post_init__(self) -> None:
        within(self, "momentum", 0, 1, left=False)

    @property
    def alpha(self) -> float:
        """The same under the name that layers use."""
        return self.momentum


class NormEMA(Method):
    """Take the batch into moving statistics, as training would, then predict with them.

    As in training, each layer sees its input normalised by the batch while statistics are taken.
    """

    Config: ClassVar[type[MethodConfig]] = NormEMAConfig
    config: NormEMAConfig
    normalization: ClassVar[Statistics] = "moving"
    paper: ClassVar[str] = "Schneider et al., NeurIPS 2020"
    passes: ClassVar[str] = "2/0"
    updates: ClassVar[str] = "running statistics"
    predicts_first: ClassVar[bool] = False
    needs_mixed_batch: ClassVar[bool] = False

    @torch.no_grad()
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Move the statistics, then predict."""
        with statistics(self.model, "recording"):
            self.run(images)
        self.keep_moving()
        return Update(prediction=self.predict(images))
