"""GraTa: step along the gradient of consistency, as far as entropy's gradient agrees with it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from holdfast.tta.methods.base import Prediction, Update
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.methods.settings import MethodConfig, Published, UpdateConfig
from holdfast.tta.options import option
from holdfast.tta.views import random_style, turns


@dataclass
class GraTaConfig(UpdateConfig):
    """Hyperparameters of GraTa."""

    published = Published(optimizer="adam", lr=1e-4)

    strength: float = option(
        1.0, "how far the styled view may differ from the image, 0: not at all"
    )


class GraTa(NormAffineMethod):
    """Cross-entropy of a styled view to the mean over turns, its gradient taken where a step
    against entropy leads; the rate is ¼(cos + 1)² of the full one, by the angle of both gradients.

    The batch leaves with the prediction that follows the update.
    """

    Config: ClassVar[type[MethodConfig]] = GraTaConfig
    config: GraTaConfig
    paper: ClassVar[str] = "Chen et al., AAAI 2025"
    passes: ClassVar[str] = "9/2"
    predicts_first: ClassVar[bool] = False
    needs_mixed_batch: ClassVar[bool] = False

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """One step, or as many as ``steps`` says; then the prediction."""
        assert self.optimizer is not None
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for _ in range(self.config.steps):
            loss = self._aligned_step(images, rates)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        with torch.no_grad():
            return Update(loss=loss, prediction=self.run(images))

    def _aligned_step(self, images: Tensor, rates: list[float]) -> Tensor:
        assert self.optimizer is not None
        auxiliary = self._gradients(self.uncertainty(self.run(images).logits).mean())
        before = self.adapted_state()
        with torch.no_grad():
            for name, gradient in auxiliary.items():
                self.adapted[name].sub_(gradient)
        loss = self._consistency(images)
        pseudo = self._gradients(loss)
        with torch.no_grad():
            for name, value in before.items():
                self.adapted[name].copy_(value)
        share = 0.25 * (_cosine(auxiliary, pseudo) + 1) ** 2
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        self.step()  # along what the last backward pass left
        return loss.detach()

    def _gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Of each adapted tensor that the loss depends on; they stay in place for a step."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        return {
            name: p.grad.detach().clone() for name, p in self.adapted.items() if p.grad is not None
        }

    def _consistency(self, images: Tensor) -> Tensor:
        """Cross-entropy to the mean probabilities of the image and its turns, in nats."""
        with torch.no_grad():
            chances = [self.run(images).logits.softmax(1)]
            for there, back in turns(images):
                said = self.run(there(images), back=back if self.task.dense else None)
                chances.append(said.logits.softmax(1))
            mean = torch.stack(chances).mean(0)
        styled = random_style(images, self.generator, self.config.strength)
        return -(mean * self.run(styled).logits.log_softmax(1)).sum(1).mean()


def _cosine(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Between two gradients, over the tensors that both have."""
    shared = [name for name in one if name in other]
    if not shared:
        return 0.0
    a, b = (torch.cat([values[name].flatten() for name in shared]) for values in (one, other))
    return float((a @ b) / (a.norm() * b.norm() + 1e-12))
