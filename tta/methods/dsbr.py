"""DSBR: entropy minimisation in which each predicted class has its share of the loss."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.distributed import joint_mean, mean_of_all, total_of_all
from holdfast.tta.errors import InputError
from holdfast.tta.marginal import likeliest, predicted_counts
from holdfast.tta.methods.base import Prediction
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, Published, UpdateConfig
from holdfast.tta.objectives import balanced_weights
from holdfast.tta.options import option, within

_PRIORS = ("auto", "uniform", "source", "estimated", "control")
#: The estimated prior asks the control so often, as the guard does by default; where both run they
#: share the answer.
_CONTROL_EVERY = 4
#: Least share of the control's marginal that a class is aimed at.
_LEAST = 1e-3


@dataclass
class DSBRConfig(UpdateConfig):
    """Hyperparameters of DSBR; Adam at 1e-3 as published."""

    published = Published(optimizer="adam", lr=1e-3)

    ema: float = option(
        0.9, "memory of the running class marginal, in [0, 1); 0: each batch by itself"
    )
    target_prior: Any = option(
        "auto",
        "share that each class should have: uniform (as published), source (that of the training "
        "images), a list that sums to 1, control (its running marginal), estimated (half of that, "
        "half uniform), or auto: uniform, of pixels and findings control",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, "ema", 0, 1, right=False)
        prior = self.target_prior
        if isinstance(prior, str):
            if prior not in _PRIORS:
                raise InputError(
                    f"method.target_prior={prior} must be one of {', '.join(_PRIORS)}, or a list "
                    "of shares"
                )
            return
        shares = [float(share) for share in prior] if isinstance(prior, (list, tuple)) else []
        if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
            raise InputError(
                f"method.target_prior={prior} must be a list of shares, not negative, that sum to 1"
            )


class DSBR(NormAffineMethod):
    """Entropy weighted by the target share over the running share of the sample's predicted class.

    With a uniform target it is the published objective, which assumes that classes are balanced:
    where one has 85 % of the stream it breaks a healthy model. The other targets are ours. Of
    pixels and findings, which are never balanced, the default holds predictions to the control's
    shares.
    """

    Config: ClassVar[type[MethodConfig]] = DSBRConfig
    config: DSBRConfig
    paper: ClassVar[str] = "arXiv 2606.02339"
    uses: ClassVar[tuple[str, ...]] = ("prevalence",)
    marginal: Tensor
    target: Tensor
    estimate: Tensor
    since_control: Tensor

    def register_state(self) -> None:
        """The running marginal of predictions, the share that each class should have, and the age
        of its estimate.
        """
        uniform = self.uniform()
        self.register_buffer("marginal", uniform)
        self.register_buffer("target", self._target(uniform))
        self.register_buffer("estimate", uniform.clone())
        self.register_buffer("since_control", torch.full((), _CONTROL_EVERY))

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Balanced entropy; the running marginal takes in the batch before it is read."""
        if self.prior in ("estimated", "control"):
            self.since_control += 1
            if int(self.since_control) > _CONTROL_EVERY:
                self.control(images)
        labels = prediction.cells(likeliest(prediction.logits))
        share = F.one_hot(labels, self.task.cells).to(self.marginal).mean(0) * self.task.groups
        (share,), _ = mean_of_all([share], len(labels))
        self.marginal.mul_(self.config.ema).add_(share, alpha=1 - self.config.ema)
        return joint_mean(
            self.uncertainty(prediction.logits)
            * balanced_weights(labels, self.marginal, self.target)
        )

    def hear_control(self, prediction: Prediction) -> None:
        """Let the estimate of the prior take in what the control says."""
        if self.prior in ("estimated", "control"):
            told = predicted_counts(prediction.logits, self.task.cells, prediction.group)
            counts = total_of_all(told)
            if counts.sum() > 0:
                self.estimate.lerp_(counts / counts.sum() * self.task.groups, 0.1)
                self.aim(self.estimate)
                self.since_control.fill_(1)

    def reweight(self, prior: Tensor) -> bool:
        """Aim at these class shares, half mixed with equal ones, as an estimated prior is."""
        self.aim(prior)
        return True

    @property
    def prior(self) -> Any:
        """What ``target_prior`` stands for in this task."""
        prior = self.config.target_prior
        if prior != "auto":
            return prior
        return "uniform" if self.task.by_image else "control"

    def aim(self, shares: Tensor) -> None:
        """Take class shares for the target: half of them, half equal ones, but of the control."""
        if self.prior == "control":
            # Never none, or a class that the control has not shown yet would weigh nothing.
            self.target.copy_(shares.clamp(min=_LEAST))
        else:
            self.target.copy_(0.5 / self.num_classes + 0.5 * shares)

    def _target(self, uniform: Tensor) -> Tensor:
        prior = self.prior
        if prior in ("uniform", "estimated", "control"):
            return uniform.clone()
        shares = torch.as_tensor(
            self.known("prevalence") if prior == "source" else prior, dtype=torch.float32
        )
        if shares.shape != uniform.shape:
            raise InputError(
                f"method.target_prior has {len(shares)} shares, and the source has "
                f"{self.num_classes} classes"
            )
        return shares.clone()
