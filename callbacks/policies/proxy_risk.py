"""A confidence sequence on a proxy of the risk: how often predictions are unsurer than the source's
surely were.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.callbacks.policies.base import Policy, Ruling, alarm
from holdfast.tta.methods import Prediction
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option, within
from holdfast.tta.sequential import MeanBound, bounded, interpolated


@dataclass
class ProxyRiskConfig:
    """Reset when uncertain predictions are surely more frequent than the source's."""

    quantile: float = option(
        0.9, "predictions are uncertain above this quantile of the source's entropies"
    )
    tolerance: float = option(0.05, "by how much their rate may exceed the source's")
    alpha: float = option(
        0.05, "chance of a false alarm, ever, while the rate is within the tolerance"
    )

    def __post_init__(self) -> None:
        within(self, "quantile", 0, 1, left=False, right=False, group="guard")
        within(self, "tolerance", 0, 1, group="guard")
        within(self, "alpha", 0, 1, left=False, right=False, group="guard")


class ProxyRisk(Policy):
    """A full reset when the lower confidence bound on the rate of uncertain predictions exceeds the
    source's + tolerance.

    The bound holds at every look (empirical Bernstein with predictable weights: Waudby-Smith &
    Ramdas, JRSS B 2024): while each sample is uncertain with a probability within the tolerance, it
    errs, ever, with probability α at most.
    """

    Config: ClassVar[type] = ProxyRiskConfig
    config: ProxyRiskConfig
    paper: ClassVar[str] = "Schirmer et al., NeurIPS 2025"
    uses: ClassVar[tuple[str, ...]] = ("entropy_quantiles",)
    remembers: ClassVar[tuple[str, ...]] = ("sums",)

    def restart(self) -> None:
        """Nothing seen."""
        self.sums: list[float] = list(MeanBound())

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Take each sample into the bound."""
        quantiles: Tensor = self.facts["entropy_quantiles"].float().cpu()
        level = torch.tensor([self.config.quantile])
        limit = interpolated(level, torch.linspace(0, 1, len(quantiles)), quantiles)
        uncertain = (entropy(prediction.logits.float()).cpu() > limit).tolist()
        state = bounded(uncertain, MeanBound(*self.sums), self.config.alpha)
        self.sums = list(state)
        allowed = 1 - self.config.quantile + self.config.tolerance
        evidence = {"risk": state.mean, "risk_bound": state.lower(self.config.alpha)}
        if evidence["risk_bound"] <= allowed:
            return Ruling(evidence=evidence)
        self.restart()
        message = (
            f"At least {evidence['risk_bound']:.0%} of predictions are uncertain; "
            f"{allowed:.0%} would pass."
        )
        return alarm("risk", message, evidence)
