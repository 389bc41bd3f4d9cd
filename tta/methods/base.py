"""What every adaptation method is: a plain module that predicts, then updates itself."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tta.errors import InputError
from tta.layout import as_channels_last, prefers_channels_last
from tta.normalization import Statistics, choose_statistics, norm_affine, statistics
from tta.options import option


class Prediction(NamedTuple):
    """What a network says of a batch: logits (N, C), and features (N, D), the input of its head."""

    logits: Tensor
    features: Tensor

    def detach(self) -> "Prediction":
        """The same values without their graph."""
        return Prediction(self.logits.detach(), self.features.detach())


class Update(NamedTuple):
    """What an update did: its loss, or the reason why there was none."""

    loss: Tensor | None = None
    skipped: str | None = None


@dataclass
class MethodConfig:
    """Hyperparameters of a method that learns nothing."""


@dataclass
class UpdateConfig(MethodConfig):
    """Hyperparameters of a method that takes gradient steps."""

    optimizer: Literal["sgd", "adam", "auto"] = option("sgd", "sgd, adam, or auto: chosen by adapt.py, as lr=auto")
    lr: float | Literal["auto"] = option(2.5e-4, "learning rate, or auto: the published scaling for network and batch size")
    momentum: float = option(0.9, "momentum of sgd")
    exclude: list[str] = option([], "layers to leave alone, by name, e.g. [features.layer4]")

    def __post_init__(self) -> None:
        if self.lr != "auto" and not 0 < self.lr < 100:
            raise InputError(f"method.lr={self.lr} is outside (0, 100)")
        if not 0 <= self.momentum < 1:
            raise InputError(f"method.momentum={self.momentum} is outside [0, 1)")


def find_head(model: nn.Module, name: str | None = None) -> nn.Module:
    """The layer whose input counts as features: the module called ``name``, or else the last Linear."""
    modules = dict(model.named_modules())
    if name is not None:
        if name not in modules:
            raise InputError(f"head={name!r} is not a module of {type(model).__name__}")
        return modules[name]
    linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"{type(model).__name__} has no Linear layer to take features from: name its classifier, head=NAME")
    return linear[-1]


class Method(nn.Module):
    """Base of all methods; subclasses say what is adapted and by which loss.

    Calling the method predicts a batch with the weights as they are, then updates them. ``predict`` and ``update`` are
    the two halves; ``control`` predicts with the source's values in every adapted tensor, ``source`` with the source's
    normalisation statistics as well. All adapted tensors, optimiser moments and running state are in the state dict.

    The method works on the given model in place: its BatchNorm layers are replaced by ones with a choice of statistics
    (same names, same tensors), and only the adapted parameters require gradients.

    Args:
        model: network from images (N, channels, ...) to logits (N, C), holding the source's weights.
        num_classes: C.
        config: the method's hyperparameters.
        head: name of the module whose input counts as features; the last Linear by default.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    normalization: ClassVar[Statistics] = "batch"

    def __init__(self, model: nn.Module, num_classes: int, config: MethodConfig, head: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self.config = config
        self._features: Tensor | None = None
        self.register_state()
        find_head(model, head).register_forward_pre_hook(self._keep_features)
        choose_statistics(model, self.normalization)
        model.requires_grad_(False)
        self.adapted = self.adapts(model)
        for parameter in self.adapted.values():
            parameter.requires_grad_(True)
        self._source = {name: p.detach().clone() for name, p in self.adapted.items()}
        self.channels_last = prefers_channels_last(model)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._create_optimizer() if self.adapted else None
        #: How gradients are made and applied; Lightning puts its own here, for precision and DDP plugins.
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.step: Callable[[], Any] = self.optimizer.step if self.optimizer else lambda: None
        self._start = {name: b.clone() for name, b in self.named_buffers() if not name.startswith("model.")}
        self.eval()

    # What subclasses say

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that updates change, by name; none unless a subclass says so."""
        return {}

    def register_state(self) -> None:
        """Register running state as buffers, here rather than in ``__init__``, so that ``reset`` knows their start."""

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor:
        """Loss of a batch; may advance the method's running state."""
        raise NotImplementedError(f"{type(self).__name__} adapts parameters, so it must say by which loss")

    # What callers use

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of the images, before the update that follows them."""
        prediction = self.predict(images)
        self.update(images, prediction)
        return prediction.logits.detach()

    def predict(self, images: Tensor) -> Prediction:
        """Predict with the weights as they are; the result keeps the graph that ``update`` needs, if gradients are on."""
        with torch.set_grad_enabled(bool(self.adapted) and torch.is_grad_enabled()):
            return self._run(images)

    def update(self, images: Tensor, prediction: Prediction) -> Update:
        """Take one step on the images, given their prediction; a non-finite batch leaves all state as it was."""
        if self.optimizer is None:
            return Update()
        # One read-back to the host a batch; without it a single NaN would end up in weights, moments and marginals.
        if not torch.isfinite(prediction.logits).all():
            return Update(skipped="non_finite")
        loss = self.objective(images, prediction)
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        self.step()
        return Update(loss=loss.detach())

    @torch.no_grad()
    def control(self, images: Tensor) -> Prediction:
        """Predict with the source's values in every adapted tensor, under the method's own normalisation."""
        return self._run(images, self._source)

    @torch.no_grad()
    def source(self, images: Tensor) -> Prediction:
        """Predict as the source model does: its weights, its running statistics."""
        with statistics(self.model, "source"):
            return self._run(images, self._source)

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start, bit for bit: weights, optimiser moments, running state."""
        for name, parameter in self.adapted.items():
            parameter.copy_(self._source[name])
        buffers = dict(self.named_buffers())
        for name, value in self._start.items():
            buffers[name].copy_(value)
        if self.optimizer is not None:
            self.optimizer.state.clear()
            self.optimizer.zero_grad(set_to_none=True)

    def adapted_state(self) -> dict[str, Tensor]:
        """Copies of the adapted tensors, by name."""
        return {name: p.detach().clone() for name, p in self.adapted.items()}

    @torch.no_grad()
    def load_adapted_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from adapted tensors; ``reset`` and ``control`` still mean the source."""
        shapes = {name: tuple(p.shape) for name, p in self.adapted.items()}
        if {name: tuple(value.shape) for name, value in state.items()} != shapes:
            raise InputError(
                "the adapted state does not fit: it was written for other layers; use the method and source it came from"
            )
        for name, parameter in self.adapted.items():
            parameter.copy_(state[name])

    # How it works

    def _run(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        if self.channels_last:
            images = as_channels_last(images)
        logits = self.model(images) if not values else functional_call(self.model, dict(values), (images,))
        features, self._features = self._features, None
        assert features is not None, "the head did not run"
        return Prediction(logits, features)

    def _keep_features(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._features = args[0]

    def _create_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        assert isinstance(config, UpdateConfig), "a method that adapts parameters needs an UpdateConfig"
        if config.lr == "auto" or config.optimizer == "auto":
            raise InputError("lr and optimizer 'auto' are chosen by adapt.py: give create_method a number and sgd or adam")
        if config.optimizer == "adam":
            return torch.optim.Adam(self.adapted.values(), lr=config.lr)
        return torch.optim.SGD(self.adapted.values(), lr=config.lr, momentum=config.momentum)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Method":
        # Snapshots follow the module to its device; they are no buffers, since the state dict need not carry them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._source = {name: fn(value) for name, value in self._source.items()}
        self._start = {name: fn(value) for name, value in self._start.items()}
        return self

    def train(self, mode: bool = True) -> "Method":
        """Stay in eval mode whatever a training loop asks: dropout is off, and statistics have a choice of their own."""
        return super().train(False)

    def get_extra_state(self) -> dict[str, Any]:
        """Optimiser moments, so that the state dict is complete."""
        return {"optimizer": self.optimizer.state_dict() if self.optimizer else None}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        if self.optimizer is not None and state["optimizer"] is not None:
            # Copied, since the optimiser would go on writing into the given moments.
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


class NormAffineMethod(Method):
    """A method that adapts weight and bias of every normalisation layer."""

    Config: ClassVar[type[MethodConfig]] = UpdateConfig
    config: UpdateConfig

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Weights and biases of the normalisation layers, but the excluded ones."""
        return norm_affine(model, self.config.exclude)
