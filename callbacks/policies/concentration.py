"""ASR's adaptive and selective reset: when mean logits concentrate on few classes, restore the last
layers.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from holdfast.callbacks.policies.base import Action, Policy, Ruling, alarm
from holdfast.tta.methods import Prediction
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option, within


@dataclass
class ConcentrationConfig:
    """Restore the last layers when mean logits concentrate on few classes (ASR)."""

    start: float = option(
        0.5,
        "the threshold starts at the entropy of this share of the classes, ln(start C), at least 0",
    )
    rate: float = option(
        0.15, "how fast the threshold follows the entropy, where the control agrees on every label"
    )
    share: float = option(
        0.5, "least share of the adapted tensors that is restored, counted from the last"
    )
    growth: float = option(20.0, "by how much that share grows per nat below the threshold")

    def __post_init__(self) -> None:
        within(self, "start", 0, 1, left=False, group="guard")
        within(self, "rate", 0, 1, group="guard")
        within(self, "share", 0, 1, group="guard")
        within(self, "growth", 0, math.inf, right=False, group="guard")


class Concentration(Policy):
    """Watches E, the entropy of the softmax of a batch's mean logits, against a threshold T.

    Where E < T, the last ``share`` + ``growth`` (T − E) of the adapted tensors, at most all, are
    restored and T starts anew. Elsewhere T moves to E by ``rate`` times the share of labels on
    which adapted and control agree. With two classes T starts at 0, below which E never is; it only
    fires once T has risen. ASR's regulariser, part of a loss, is no part of the policy.
    """

    Config: ClassVar[type] = ConcentrationConfig
    config: ConcentrationConfig
    paper: ClassVar[str] = "Lim et al., ICLR 2026"
    needs: ClassVar[tuple[str, ...]] = ("restore_last", "control")
    remembers: ClassVar[tuple[str, ...]] = ("threshold",)

    def restart(self) -> None:
        """The threshold at its start."""
        self.threshold = max(math.log(self.config.start * self.num_classes), 0.0)

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Hold the entropy of the mean logits against the threshold."""
        assert control is not None, "the policy needs the control"
        value = entropy(prediction.logits.float().mean(0, keepdim=True)).item()
        evidence = {"concentration_entropy": value, "threshold": self.threshold}
        gap = self.threshold - value
        if gap > 0:
            share = min(self.config.share + self.config.growth * gap, 1.0)
            self.restart()
            message = (
                f"Mean logits have an entropy of {value:.3f} nats, below "
                f"{evidence['threshold']:.3f}."
            )
            return alarm("concentration", message, evidence, Action("restore_last", share))
        agreed = (prediction.logits.argmax(1) == control.logits.argmax(1)).float().mean().item()
        self.threshold -= self.config.rate * agreed * gap
        return Ruling(evidence=evidence)
