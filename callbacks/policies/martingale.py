"""POEM's martingale as an alarm: a bet that entropies are no longer distributed as the source's."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.callbacks.policies.base import Policy, Ruling, alarm
from holdfast.tta.methods import Prediction
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option, within
from holdfast.tta.sequential import Wager, interpolated, wagered


@dataclass
class MartingaleConfig:
    """Reset when a bet against the source's distribution of entropies is won (POEM)."""

    alpha: float = option(
        0.01, "chance of a false alarm, ever, while entropies are as the source's"
    )
    gamma: float = option(1 / (8 * math.sqrt(3)), "step size of the bet")
    clip: float = option(1.8, "largest bet, in (0, 2)")

    def __post_init__(self) -> None:
        within(self, "alpha", 0, 1, left=False, right=False, group="guard")
        within(self, "gamma", 0, math.inf, left=False, group="guard")
        within(self, "clip", 0, 2, left=False, right=False, group="guard")


class Martingale(Policy):
    """A full reset when the wealth of POEM's bet has reached 1/α, looked at after each batch.

    While u = F(H) is uniform, F being the source's distribution function of entropies H, wealth is
    a martingale, and reaches 1/α with probability α at most (Ville, 1939). It is betting again from
    nothing after a reset.
    """

    Config: ClassVar[type] = MartingaleConfig
    config: MartingaleConfig
    paper: ClassVar[str] = "Bar et al., NeurIPS 2024"
    uses: ClassVar[tuple[str, ...]] = ("entropy_quantiles",)
    remembers: ClassVar[tuple[str, ...]] = ("bet", "log_wealth", "squares")

    def restart(self) -> None:
        """No bet, no wealth won."""
        self.bet, self.log_wealth, self.squares = Wager()

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Settle the bet on each sample."""
        quantiles: Tensor = self.facts["entropy_quantiles"].float().cpu()
        u = interpolated(
            entropy(prediction.logits.float()).cpu(),
            quantiles,
            torch.linspace(0, 1, len(quantiles)),
        )
        wager = Wager(self.bet, self.log_wealth, self.squares)
        _, wager = wagered(u.tolist(), wager, self.config.gamma, self.config.clip)
        self.bet, self.log_wealth, self.squares = wager
        evidence = {"log_wealth": wager.log_wealth, "bet": wager.bet}
        if wager.log_wealth < math.log(1 / self.config.alpha):
            return Ruling(evidence=evidence)
        self.restart()
        way = "higher" if wager.bet > 0 else "lower"
        message = (
            f"Entropies are {way} than the source's: the bet on it has won "
            f"exp({wager.log_wealth:.1f})."
        )
        return alarm("entropy_distribution", message, evidence)
