"""PeTTA's divergence: the further class features have left the source, the harder weights are
pulled back.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from holdfast.callbacks.guard.modes import Verdict
from holdfast.callbacks.policies.base import Action, Policy, Ruling, alarm
from holdfast.tta.divergence import departure, running_class_means
from holdfast.tta.methods import Prediction
from holdfast.tta.options import option, within


@dataclass
class DivergenceConfig:
    """Pull weights to the source by how far class features have left it (PeTTA)."""

    memory: float = option(
        0.95, "memory of the running class means of features, per batch that shows the class"
    )
    pull: float = option(
        0.1,
        "share of the way to the source that weights go each batch where features have left it "
        "wholly; published: 10 lr",
    )
    threshold: float = option(
        0.9, "divergence, in [0, 1], above which there is an alarm; it changes nothing"
    )

    def __post_init__(self) -> None:
        for name in ("memory", "pull", "threshold"):
            within(self, name, 0, 1, group="guard")


class Divergence(Policy):
    """After each batch, weights go ``pull`` times γ of the way back to the source's.

    γ is 1 − exp(−d), d the mean squared distance of the running feature means of the batch's
    predicted classes to the source's, in units of its variance. PeTTA knows no reset: it adds a
    pull to the source of weight 10 γ to its loss, by which a step of gradient descent takes weights
    10 γ lr of the way back. That is done here, whatever the method's loss; the default belongs to a
    rate of .01. The slower teacher, PeTTA's other half, is left to the method of that name.
    """

    Config: ClassVar[type] = DivergenceConfig
    config: DivergenceConfig
    paper: ClassVar[str] = "Hoang et al., NeurIPS 2024"
    uses: ClassVar[tuple[str, ...]] = ("feature_mean", "feature_var")
    needs: ClassVar[tuple[str, ...]] = ("restore",)
    remembers: ClassVar[tuple[str, ...]] = ("mean", "above")

    def restart(self) -> None:
        """Running means start at the source's."""
        self.mean: Tensor = self.facts["feature_mean"].float()
        self.above = False

    def judge(self, prediction: Prediction, control: Prediction | None = None) -> Ruling:
        """Move the running means, and pull by the divergence; the alarm is raised when it passes
        the threshold.
        """
        features = prediction.features.float()
        self.mean, present = running_class_means(
            self.mean.to(features), features, prediction.logits.argmax(1), self.config.memory
        )
        source = (self.facts[name].to(features) for name in self.uses)
        gamma = departure(self.mean[present], *(value[present] for value in source)).item()
        evidence, action = {"divergence": gamma}, Action("restore", self.config.pull * gamma)
        before, self.above = self.above, gamma > self.config.threshold
        if not self.above:
            return Ruling(action=action, evidence=evidence)
        message = f"Class features have left the source's by {gamma:.2f} of 1."
        if before:
            return Ruling(Verdict("WATCH", "divergence", message), action, evidence)
        return alarm("divergence", message, evidence, action)
