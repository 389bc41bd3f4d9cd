"""ETA: entropy minimisation on samples that are reliable and not redundant."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.distributed import any_of_all, joint_mean, total_of_all
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.objectives import similarity
from holdfast.tta.options import option, within

#: A sample is redundant once its class has so many times the share that it would have if all were
#: equal. See ``redundancy_margin``; the published margins are 1.27 (10 classes) and 1.58 (1000
#: classes) in these terms.
_OVERREPRESENTED = 1.5


def redundancy_margin(num_classes: int) -> float:
    """The cosine to the running marginal above which a confident sample is redundant, for C
    classes.

    The published margins (.05 for 1000 classes, .4 for 10) lie just above 1/√C, the cosine between
    a confident prediction and a balanced marginal. Kept for fewer classes they would reject every
    sample, so the margin follows C: it is the cosine to a marginal in which the sample's class has
    k/C and the others share the rest, k = 1.5.
    """
    share = min(_OVERREPRESENTED / num_classes, 1.0)
    return share / math.hypot(share, (1 - share) / math.sqrt(num_classes - 1))


@dataclass
class ETAConfig(UpdateConfig):
    """Hyperparameters of ETA."""

    entropy_margin: float | None = option(
        None, "entropy below which a sample is reliable, in nats; null: 0.4 ln C"
    )
    entropy_reference: float | None = option(
        None, "E₀ of the weights e^(E₀−H), in nats; null: the entropy margin"
    )
    redundancy_margin: float | None = option(
        None, "largest cosine to the running marginal, in [0, 1]; null: follows C"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "entropy_margin", 0, math.inf, left=False)
        within(self, "entropy_reference", 0, math.inf, left=False)
        within(self, "redundancy_margin", 0, 1)


class ETA(NormAffineMethod):
    """Entropy of the reliable, non-redundant samples, weighted by e^(E₀−H): EATA without its
    regulariser.
    """

    Config: ClassVar[type[MethodConfig]] = ETAConfig
    config: ETAConfig
    paper: ClassVar[str] = "Niu et al., ICML 2022"
    marginal: Tensor
    started: Tensor

    def register_state(self) -> None:
        """The running marginal of accepted samples, and whether there has been one (of each
        group).
        """
        groups = self.task.groups
        self.register_buffer("marginal", torch.zeros(self.task.cells))
        self.register_buffer(
            "started", torch.zeros(() if groups == 1 else groups, dtype=torch.bool)
        )

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Weighted mean entropy of the accepted samples."""
        config = self.config
        margin = self.nats(0.4) if config.entropy_margin is None else config.entropy_margin
        reference = margin if config.entropy_reference is None else config.entropy_reference
        redundant = (
            redundancy_margin(self.num_classes)
            if config.redundancy_margin is None
            else config.redundancy_margin
        )
        losses = self.uncertainty(prediction.logits)
        values, p = losses.detach(), prediction.logits.detach().softmax(1).float()
        group = prediction.group
        started = self.started if group is None else self.started[group]
        kept = (values < margin) & (
            (similarity(p, self.marginal, group).abs() < redundant) | ~started
        )
        if not any_of_all(bool(kept.any()), kept.device):
            return None
        if group is None:
            self._accept(joint_mean(p[kept]))
        else:
            self._accept_groups(p[kept], group[kept])
        return joint_mean((losses * (reference - values).exp())[kept])

    def _accept(self, accepted: Tensor) -> None:
        """Let the running marginal take in the mean prediction (C,) of accepted samples."""
        self.marginal.copy_(
            torch.where(self.started, 0.9 * self.marginal + 0.1 * accepted, accepted)
        )
        self.started.fill_(True)

    def _accept_groups(self, p: Tensor, group: Tensor) -> None:
        """The same for each group of rows (m, C) that has any."""
        past = self.marginal.view(len(self.started), -1)
        counts = total_of_all(torch.bincount(group, minlength=len(past)).to(p))
        sums = total_of_all(torch.zeros_like(past).index_add_(0, group, p))
        mean = sums / counts.clamp(min=1)[:, None]
        new = torch.where(self.started[:, None], 0.9 * past + 0.1 * mean, mean)
        past.copy_(torch.where(counts[:, None] > 0, new, past))
        self.started |= counts > 0
