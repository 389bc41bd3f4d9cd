"""SAR's recovery: reset when predictions have become too certain to be true."""

import math
from dataclasses import dataclass
from typing import ClassVar

from holdfast.callbacks.policies.base import Policy, Ruling, alarm
from holdfast.tta.methods import Prediction
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option, within


@dataclass
class EntropyFloorConfig:
    """Reset when the running mean entropy falls below a floor (SAR)."""

    floor: float = option(
        0.029,
        "mean entropy, as a fraction of ln C, below which to reset; published: .2 nats for 1000 "
        "classes",
    )
    memory: float = option(0.9, "memory of the running mean entropy, per batch")

    def __post_init__(self) -> None:
        within(self, "floor", 0, 1, group="guard")
        within(self, "memory", 0, 1, right=False, group="guard")


class EntropyFloor(Policy):
    """A full reset when the running mean of the batches' mean entropy is below ``floor`` ln C.

    SAR takes the mean over its reliable samples, at perturbed weights. A policy sees the prediction
    alone, and takes it over all samples.
    """

    Config: ClassVar[type] = EntropyFloorConfig
    config: EntropyFloorConfig
    paper: ClassVar[str] = "Niu et al., ICLR 2023"
    remembers: ClassVar[tuple[str, ...]] = ("running",)

    def restart(self) -> None:
        """The first batch sets the running mean."""
        self.running: float | None = None

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Take the batch's mean entropy into the running one, and hold that against the floor."""
        value = entropy(prediction.logits.float()).mean().item()
        memory = self.config.memory
        self.running = (
            value if self.running is None else memory * self.running + (1 - memory) * value
        )
        floor = self.config.floor * math.log(self.num_classes)
        evidence = {"running_entropy": self.running, "floor": floor}
        if self.running >= floor:
            return Ruling(evidence=evidence)
        self.restart()
        return alarm(
            "entropy",
            f"Mean entropy fell to {evidence['running_entropy']:.3f} nats, below {floor:.3f}.",
            evidence,
        )
