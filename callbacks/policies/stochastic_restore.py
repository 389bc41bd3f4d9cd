"""CoTTA's stochastic restoration: a random part of the weights goes back to the source after every
batch.
"""

from dataclasses import dataclass
from typing import ClassVar

from holdfast.callbacks.policies.base import Action, Policy, Ruling
from holdfast.tta.methods import Prediction
from holdfast.tta.options import option, within


@dataclass
class StochasticRestoreConfig:
    """Restore a random part of the adapted weights after every batch (CoTTA)."""

    share: float = option(
        0.01,
        "probability with which each weight is restored; published: .01, and .001 for 1000 classes",
    )

    def __post_init__(self) -> None:
        within(self, "share", 0, 1, group="guard")


class StochasticRestore(Policy):
    """Each element of the adapted tensors returns to the source with a fixed probability. It never
    raises an alarm.
    """

    Config: ClassVar[type] = StochasticRestoreConfig
    config: StochasticRestoreConfig
    paper: ClassVar[str] = "Wang et al., CVPR 2022"
    needs: ClassVar[tuple[str, ...]] = ("restore_elements",)
    watches: ClassVar[bool] = False

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Restore, always."""
        return Ruling(action=Action("restore_elements", self.config.share))
