"""``check_method`` passes what keeps the promises, and names each promise that is broken."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holdfast.testing import check_method
from holdfast.tta.methods import Method, Prediction, Update, UpdateConfig
from holdfast.tta.methods.norm_affine import NormAffineMethod
from holdfast.tta.objectives import entropy


class Good(NormAffineMethod):
    """Entropy, in the shortest way."""

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        return entropy(prediction.logits).mean()


class Nothing(Good):
    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        return None


class Unmoved(Good):
    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        return 0 * prediction.logits.sum()


class Divides(Good):
    """The variance of one image is 0/0."""

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        return entropy(prediction.logits).mean() / prediction.logits.detach().std(0).mean()


class Squeezed(Good):
    def predict(self, images: Tensor) -> Prediction:
        return Prediction(super().predict(images).logits.squeeze(0), images.flatten(1))


class BatchNormOnly(Method):
    """Looks for the layers that its author had."""

    Config = UpdateConfig

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        return {
            "1.weight": model.get_parameter("1.weight"),
            "4.bias": model.get_parameter("4.bias"),
        }

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        return entropy(prediction.logits).mean()


class OwnStep(Good):
    def descend(self, loss: Tensor) -> None:
        loss.backward()
        with torch.no_grad():
            for p in self.adapted.values():
                p.sub_(0.01 * p.grad)
                p.grad = None


class TouchesHead(Good):
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        with torch.no_grad():
            self.model.get_parameter(f"{self.head_name}.bias").add_(0.01)
        return super().learn(images, prediction)


class TouchesBuffers(Good):
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        for name, buffer in self.model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1)
        return super().learn(images, prediction)


class Leaks(Good):
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        self.model.requires_grad_(True)
        return super().learn(images, prediction)


class LearnsInPredict(Good):
    def predict(self, images: Tensor) -> Prediction:
        with torch.no_grad():
            for p in self.adapted.values():
                p.mul_(0.99)
        return super().predict(images)


class ServesLater(Good):
    @torch.enable_grad()
    def forward(self, images: Tensor) -> Tensor:
        self.update(images, self.predict(images))
        return self.predict(images).logits.detach()


class WritesSource(Good):
    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        for value in self.source_values.values():
            value.add_(0.1)
        return super().learn(images, prediction)


class Counts(Good):
    """State that neither reset nor the state dict knows."""

    seen = 0

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        self.seen += 1
        return self.seen * entropy(prediction.logits).mean()


class ForgetsToSave(Counts):
    def reset(self) -> None:
        super().reset()
        self.seen = 0


class DrawsFromTorch(Good):
    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        return (torch.rand(len(images)) * entropy(prediction.logits)).mean()


class Unloadable(Good):
    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "kind": type(self)}


class ForgetsToReset(Good):
    def reset(self) -> None:
        self.restore(0.5)


class Reluctant(Good):
    def restore(self, fraction: float) -> None:
        super().restore(0.5 * fraction)


class NoAim(Good):
    def reweight(self, prior: Tensor) -> Any:
        return None


class KeepsState(Good):
    """Deaf to what adapted tensors it is given."""

    def load_adapted_state(self, state: Any) -> None:
        self.has_learned = True


class LearnsFromNaN(Good):
    def update(self, images: Tensor, prediction: Prediction | None = None) -> Update:
        assert prediction is not None
        return self.learn(images, prediction)


class ControlWithoutFeatures(Good):
    def control(self, images: Tensor) -> Any:
        return (
            self.run_source(images)
            if self.optimizer and self.idle < 0
            else _Bare(super().control(images).logits)
        )


class _Bare:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


BROKEN = {
    Nothing: r"skipped all batches \(all_filtered\).*options that open its filters",
    Unmoved: "never moves what it adapts: return a loss",
    Divides: "NaN or infinity in its logits or weights for one image",
    Squeezed: r"answers \(4,\) for one image",
    BatchNormOnly: r"runs on any network.*AttributeError",
    OwnStep: "moves its weights without self.step: learn by self.descend",
    TouchesHead: "changed 8.bias of the source's network: name in adapts",
    TouchesBuffers: "changed 1.running_mean, 4.running_mean",
    Leaks: "lets gradients into 0.weight",
    LearnsInPredict: r"learns in predict \(model",
    ServesLater: "serves a batch by weights that have learned from it",
    WritesSource: "no longer has its control once it has learned",
    DrawsFromTorch: "answers otherwise under the same seed: draw from self.generator",
    ForgetsToReset: r"is not where it began after reset .*call super\(\).reset",
    Counts: "answers the same stream otherwise after reset: keep running state in buffers",
    Unloadable: "state dict that weights_only refuses",
    ForgetsToSave: "goes on otherwise from its saved state: keep running state in buffers",
    KeepsState: "does not take up the adapted_state of another",
    Reluctant: r"is not at the source after restore\(1\)",
    NoAim: "answers reweight by None",
    LearnsFromNaN: "learns from a batch that holds a NaN: override learn",
    ControlWithoutFeatures: r"runs in a Trainer, guarded.*(_Bare|Prediction)",
}


def test_a_method_that_keeps_them_passes() -> None:
    before = torch.get_rng_state()
    check_method(Good, lr=0.01)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_a_broken_promise_is_named(method: type[Method]) -> None:
    with pytest.raises(AssertionError, match=f"^{method.__name__} .*{BROKEN[method]}"):
        check_method(method, lr=0.01)
