"""Marginal z-scores: reset when the recent predicted marginal leaves what it has been."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.callbacks.policies.base import Policy, Ruling, alarm
from holdfast.tta.errors import InputError
from holdfast.tta.marginal import predicted_counts
from holdfast.tta.methods import Prediction
from holdfast.tta.options import option, within


@dataclass
class ZScoreConfig:
    """Reset when the recent predicted marginal leaves its running mean by too many standard
    deviations.
    """

    threshold: float = option(3.0, "largest |z| of a class's share that passes")
    window: int = option(10, "recent batches that are held against those before")
    warm_up: int = option(10, "batches before the recent ones that there must be, at least 2")

    def __post_init__(self) -> None:
        within(self, "threshold", 0, math.inf, left=False, group="guard")
        if self.window < 1 or self.warm_up < 2:
            raise InputError("guard.window must be at least 1, and guard.warm_up at least 2")


class ZScore(Policy):
    """A full reset when a class's share of the recent predictions differs from its share before by
    |z| > ``threshold``.

    Shares are taken batch by batch; their standard deviation among the earlier batches, at least
    one prediction of a batch, is the unit. z of two means over w and n batches is their difference
    over σ √(1/w + 1/n).
    """

    Config: ClassVar[type] = ZScoreConfig
    config: ZScoreConfig
    paper: ClassVar[str] = "Shewhart's control chart, on predicted marginals"
    remembers: ClassVar[tuple[str, ...]] = ("recent", "count", "mean", "squares")

    def restart(self) -> None:
        """Nothing recent, nothing before."""
        self.recent = torch.zeros(0, self.num_classes, dtype=torch.float64)
        self.count = 0
        self.mean: Tensor = torch.zeros(self.num_classes, dtype=torch.float64)
        self.squares: Tensor = torch.zeros(self.num_classes, dtype=torch.float64)

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Hold the recent batches' shares against those before."""
        size = len(prediction.logits)
        shares = predicted_counts(prediction.logits, self.num_classes).double().cpu() / size
        self.recent = torch.cat([self.recent, shares[None]])
        if len(self.recent) > self.config.window:
            self._take(self.recent[0])
            self.recent = self.recent[1:]
        if self.count < self.config.warm_up:
            return Ruling()
        deviation = (self.squares / (self.count - 1)).sqrt().clamp(min=1 / size)
        z = (self.recent.mean(0) - self.mean) / (
            deviation * math.sqrt(1 / len(self.recent) + 1 / self.count)
        )
        worst = int(z.abs().argmax())
        evidence = {"z": z[worst].item()}
        if abs(evidence["z"]) <= self.config.threshold:
            return Ruling(evidence=evidence)
        self.restart()
        return alarm(
            "marginal",
            f"The share of class {worst} moved by {evidence['z']:.1f} standard deviations.",
            evidence,
        )

    def _take(self, shares: Tensor) -> None:
        """A batch that is recent no longer (Welford, 1962)."""
        self.count += 1
        before = shares - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (shares - self.mean)
