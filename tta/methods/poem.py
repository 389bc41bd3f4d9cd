"""POEM: bet on whether entropies still look like the source's, and match them as far as the bet is
won.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.options import option, within
from holdfast.tta.sequential import interpolated


@dataclass
class POEMConfig(UpdateConfig):
    """Hyperparameters of POEM."""

    entropy_margin: float | None = option(
        None, "entropy below which a sample is matched, in nats; null: 0.4 ln C"
    )
    gamma: float = option(1 / (8 * math.sqrt(3)), "step size of the bet")
    clip: float = option(1.8, "bet that is not raised any more, in (0, 2)")
    warmup: int = option(100, "samples after which the first batch is learned from")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "entropy_margin", 0, math.inf, left=False)
        within(self, "gamma", 0, math.inf, left=False)
        within(self, "clip", 0, 2, left=False, right=False)
        if self.clip + self.gamma >= 2:
            raise InputError(
                f"method.clip={self.clip} and method.gamma={self.gamma} must sum to less than 2: a "
                "bet passes the clip by up "
                "to gamma, and a bet of 2 can lose all"
            )
        within(self, "warmup", 0, math.inf)


class POEM(NormAffineMethod):
    """Squared distance of entropies, weighted by e^(E₀−H), to where the source's distribution would
    have them.

    Each sample's entropy H is turned into u = F(H) by the source's distribution function F. Wealth
    grows by the factor 1 + ε(u − ½) when the bet ε says rightly whether entropies are high or low;
    ε follows by scale-free online gradient descent. The target entropy is F⁻¹(½εu² + (1 − ½ε)u),
    which is H itself as long as nothing is bet.
    """

    Config: ClassVar[type[MethodConfig]] = POEMConfig
    config: POEMConfig
    paper: ClassVar[str] = "Bar et al., NeurIPS 2024"
    updates: ClassVar[str] = "norm affine but the last stage"
    uses: ClassVar[tuple[str, ...]] = ("entropy_quantiles",)
    spares_last_stage: ClassVar[bool] = True
    quantiles: Tensor
    bet: Tensor
    log_wealth: Tensor
    squares: Tensor
    seen: Tensor

    def register_state(self) -> None:
        """The source's entropy quantiles, the bet, its squared gradients, the log of the wealth,
        samples seen.
        """
        self.register_buffer(
            "quantiles",
            torch.as_tensor(self.known("entropy_quantiles"), dtype=torch.float32).clone(),
        )
        for name in ("bet", "log_wealth", "squares"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Half squared distance of weighted entropies to weighted targets, over the certain
        samples.
        """
        margin = (
            self.nats(0.4) if self.config.entropy_margin is None else self.config.entropy_margin
        )
        values = self.uncertainty(prediction.logits)
        detached = values.detach().float()
        levels = torch.linspace(0, 1, len(self.quantiles), device=detached.device)
        u = interpolated(detached, self.quantiles, levels)
        # Rows of an image tell the same thing, so a bet is settled by what they say on the mean.
        bets = u.new_tensor(self._bets(prediction.each_image(u).tolist()))
        if prediction.image is not None:
            bets = bets[prediction.image]
        target = interpolated(
            0.5 * bets * u.square() + (1 - 0.5 * bets) * u, levels, self.quantiles
        )
        warm = int(self.seen) >= self.config.warmup
        kept = detached < margin
        if not warm or not kept.any():
            return None
        # As released, the weight multiplies the entropies, so it counts twice in the square.
        return (0.5 * ((values - target) * (margin - detached).exp()).square())[kept].mean()

    def _bets(self, u: list[float]) -> list[float]:
        """The bet on each sample, settled one after the other."""
        bet, log_wealth, squares = float(self.bet), float(self.log_wealth), float(self.squares)
        first, bets = int(self.seen) == 0, []
        for value in u:
            bets.append(bet)
            factor = 1 + bet * (value - 0.5)
            log_wealth += math.log(factor)
            # As released: the very first sample teaches nothing, and a bet beyond the clip can only
            # fall.
            beyond = abs(bet) > self.config.clip and bet * (value - 0.5) > 0
            if not (first or beyond):
                gradient = (value - 0.5) / factor
                squares += gradient**2
                bet += self.config.gamma * gradient / math.sqrt(squares) if gradient else 0.0
            first = False
        self.bet.fill_(bet)
        self.log_wealth.fill_(log_wealth)
        self.squares.fill_(squares)
        self.seen += len(u)
        return bets
