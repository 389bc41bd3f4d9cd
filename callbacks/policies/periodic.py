"""RDumb's reset: the whole source, every so many batches."""

from dataclasses import dataclass
from typing import ClassVar

from holdfast.callbacks.policies.base import RESET, Policy, Ruling
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction
from holdfast.tta.options import option


@dataclass
class PeriodicConfig:
    """Reset at a fixed period, whatever the stream does (RDumb)."""

    every: int = option(1000, "batches between two resets")

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"guard.every={self.every} must be at least 1")


class Periodic(Policy):
    """A full reset after every ``every``-th batch. It is no alarm: nothing was found."""

    Config: ClassVar[type] = PeriodicConfig
    config: PeriodicConfig
    paper: ClassVar[str] = "Press et al., NeurIPS 2023"
    watches: ClassVar[bool] = False
    remembers: ClassVar[tuple[str, ...]] = ("batches",)

    def restart(self) -> None:
        """A new period."""
        self.batches = 0

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Count."""
        self.batches += 1
        if self.batches < self.config.every:
            return Ruling()
        self.restart()
        return Ruling(action=RESET)
