"""POEM: bet on whether entropies still look like the source's, and match them as far as the bet is won."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tta.methods.base import NormAffineMethod, Prediction
from tta.methods.settings import MethodConfig, UpdateConfig
from tta.options import option, within
from tta.sequential import Wager, interpolated, wagered


@dataclass
class POEMConfig(UpdateConfig):
    """Hyperparameters of POEM."""

    entropy_margin: float | None = option(
        None, "entropy below which a sample is matched, in nats; null: 0.4 ln C"
    )
    gamma: float = option(1 / (8 * math.sqrt(3)), "step size of the bet")
    clip: float = option(1.8, "largest bet, in (0, 2)")
    warmup: int = option(100, "samples that are only bet on, at the start")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "entropy_margin", 0, math.inf, left=False)
        within(self, "gamma", 0, math.inf, left=False)
        within(self, "clip", 0, 2, left=False, right=False)
        within(self, "warmup", 0, math.inf)


class POEM(NormAffineMethod):
    """Squared distance of entropies to where the source's distribution would have them.

    Each sample's entropy H is turned into u = F(H) by the source's distribution function F. Wealth grows by the factor
    1 + ε(u − ½) when the bet ε says rightly whether entropies are high or low; ε follows by scale-free online gradient
    descent. The target entropy is F⁻¹(½εu² + (1 − ½ε)u), which is H itself as long as nothing is bet.
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
        """The source's entropy quantiles, the bet, its squared gradients, the log of the wealth, samples seen."""
        self.register_buffer(
            "quantiles",
            torch.as_tensor(self.known("entropy_quantiles"), dtype=torch.float32).clone(),
        )
        for name in ("bet", "log_wealth", "squares"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Weighted half squared distance to the target entropies, over the certain samples."""
        margin = (
            self.nats(0.4) if self.config.entropy_margin is None else self.config.entropy_margin
        )
        values = self.uncertainty(prediction.logits)
        detached = values.detach().float()
        levels = torch.linspace(0, 1, len(self.quantiles), device=detached.device)
        u = interpolated(detached, self.quantiles, levels)
        bets = u.new_tensor(self._bets(u.tolist()))
        target = interpolated(
            0.5 * bets * u.square() + (1 - 0.5 * bets) * u, levels, self.quantiles
        )
        warm = int(self.seen) > self.config.warmup
        kept = detached < margin
        if not warm or not kept.any():
            return None
        return (0.5 * (values - target).square() * (margin - detached).exp())[kept].mean()

    def _bets(self, u: list[float]) -> list[float]:
        """The bet on each sample, settled one after the other."""
        before = Wager(float(self.bet), float(self.log_wealth), float(self.squares))
        bets, after = wagered(u, before, self.config.gamma, self.config.clip)
        for name, value in after._asdict().items():
            getattr(self, name).fill_(value)
        self.seen += len(u)
        return bets
