"""Statistics between the source's and each batch's own, nothing learned."""

from dataclasses import dataclass
from typing import ClassVar

from holdfast.tta.methods.base import Method
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import Statistics
from holdfast.tta.options import option, within


@dataclass
class AlphaNormConfig(MethodConfig):
    """How far the statistics lean to the batch."""

    alpha: float = option(0.1, "the batch's weight, in [0, 1]")

    def __post_init__(self) -> None:
        within(self, "alpha", 0, 1)


class AlphaNorm(Method):
    """Predict with (1−α) of the source's statistics and α of the batch's."""

    Config: ClassVar[type[MethodConfig]] = AlphaNormConfig
    normalization: ClassVar[Statistics] = "blend"
    paper: ClassVar[str] = "Schneider et al., NeurIPS 2020"
    updates: ClassVar[str] = "nothing"
    static: ClassVar[bool] = True
