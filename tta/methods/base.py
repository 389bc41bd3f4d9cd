"""What every adaptation method is: a plain module that predicts, then updates itself."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.tta.distributed import any_of_all
from holdfast.tta.errors import InputError
from holdfast.tta.layout import as_channels_last, prefers_channels_last
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.normalization import (
    Statistics,
    choose_statistics,
    named_adjustable_layers,
    statistics,
)
from holdfast.tta.objectives import entropy
from holdfast.tta.outputs import as_logits, check_width
from holdfast.tta.selection import find_head, last_stage, norm_affine

#: After so many batches in a row without a sample to learn from, a person should know.
_PATIENCE = 50


#: The option of train.py that makes it write a statistic, where there is one.
_WRITTEN_BY = {"fisher": " fisher_images=2000"}


class Prediction(NamedTuple):
    """What a network says of a batch: logits (N, C), and features (N, D), the input of its head."""

    logits: Tensor
    features: Tensor

    def detach(self) -> "Prediction":
        """The same values without their graph."""
        return Prediction(self.logits.detach(), self.features.detach())


class Update(NamedTuple):
    """What an update did.

    Attributes:
        loss: its loss; None where there was no gradient step.
        skipped: the reason why nothing was learned, or None.
        prediction: what the batch leaves with, where the method changes its prediction after the
            forward pass.
        restored: the method took itself back to the source.
    """

    loss: Tensor | None = None
    skipped: str | None = None
    prediction: Prediction | None = None
    restored: bool = False


class Method(nn.Module):
    """Base of all methods; subclasses say what is adapted and by which loss.

    Calling the method predicts a batch with the weights as they are, then updates them. ``predict``
    and ``update`` are the two halves; ``control`` predicts with the source's values in every
    adapted tensor, ``source`` with the source's normalisation statistics as well. All adapted
    tensors, optimiser moments, running state and the state of the random generator are in the state
    dict.

    The method works on the given model in place: its BatchNorm layers are replaced by ones with a
    choice of statistics (same names, same tensors), and only the adapted parameters require
    gradients.

    Args:
        model: network from images (N, channels, ...) to logits (N, C), holding the source's
            weights; for two classes one logit will do. Of a tuple or dictionary the first tensor
            (N, C) counts.
        num_classes: C.
        config: the method's hyperparameters.
        head: name of the module whose input counts as features; the last Linear by default.
        known: what is known of the source, by the names in ``uses``.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    #: Statistics of methods that fix theirs; those with an ``UpdateConfig`` take its choice.
    normalization: ClassVar[Statistics] = "batch"
    #: The paper, for the table of methods.
    paper: ClassVar[str] = ""
    #: Forward and backward passes a batch.
    passes: ClassVar[str] = "1/0"
    #: What is adapted, in a few words.
    updates: ClassVar[str] = "nothing"
    #: Fields of the source checkpoint that the method uses, always or with some hyperparameters.
    uses: ClassVar[tuple[str, ...]] = ()
    #: Whether the prediction is always the control's.
    static: ClassVar[bool] = False
    #: Whether ``update`` wants a prediction made before it; otherwise it makes its own.
    predicts_first: ClassVar[bool] = True
    #: Whether a short batch, or one of a single class, teaches the wrong thing.
    needs_mixed_batch: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        config: MethodConfig,
        head: str | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self.config = config
        self._known = dict(known or {})
        self._features: Tensor | None = None
        classifier = find_head(model, head)
        classifier.register_forward_pre_hook(self._keep_features)
        self.head_name = next(
            name for name, module in model.named_modules() if module is classifier
        )
        check_width(classifier, self.head_name, num_classes)
        normalization = getattr(config, "normalization", self.normalization)
        #: Whether somebody else chooses the statistics, by ``use_statistics``.
        self.chosen_elsewhere = normalization == "auto"
        if self.chosen_elsewhere:
            choose_statistics(model, "moving")
            normalization = "source"  # until then
        choose_statistics(model, normalization, getattr(config, "alpha", 0.1))
        model.requires_grad_(False)
        self.adapted = self.adapts(model)
        for parameter in self.adapted.values():
            parameter.requires_grad_(True)
        self._source = {name: p.detach().clone() for name, p in self.adapted.items()}
        self.channels_last = prefers_channels_last(model)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._create_optimizer() if self.adapted else None
        #: How gradients are made and applied; Lightning puts its own here, for precision and DDP
        #: plugins.
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.step: Callable[[], Any] = self.optimizer.step if self.optimizer else lambda: None
        #: Source of every random draw, seeded from torch's seed; on the CPU, so that a stream is
        #: the same on any device.
        self.generator = torch.Generator()
        self.generator.manual_seed(torch.initial_seed() % 2**63)
        #: Running state of shapes that are not known beforehand.
        self.memory: dict[str, Tensor] = {}
        self._idle = 0
        self._control_moving: dict[str, Tensor] | None = None
        #: Layers whose statistics can be chosen, by name: looked for once, since finding them takes
        #: longer than using them.
        self.layers = named_adjustable_layers(model)
        averaging = {} if self.chosen_elsewhere else self.layers
        #: Layers whose moving averages depend on the weights below them, so that the control has
        #: its own, by their prefix.
        self._averaging = {
            f"{name}.": layer for name, layer in averaging.items() if layer.moving_mean is not None
        }
        #: Whether an update was tried since the start, which a reset would undo; until then adapted
        #: and control are the same.
        self.has_learned = False
        self._control_at: Tensor | None = None
        self._control_said: Prediction | None = None
        self._heard = False
        self.register_state()
        self._start = {name: b.clone() for name, b in self.named_buffers() if self._is_state(name)}
        self._start_memory = {name: value.clone() for name, value in self.memory.items()}
        self._start_generator = self.generator.get_state()
        self.eval()

    # What subclasses say

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that updates change, by name; none unless a subclass says so."""
        return {}

    def register_state(self) -> None:
        """Register running state, here rather than in ``__init__``, so that ``reset`` knows its
        start.

        State of known shape goes into buffers, other state into ``memory``.
        """

    def objective(self, images: Tensor, prediction: Prediction) -> Tensor | None:
        """Loss of a batch, None where no sample is fit to learn from; may advance the method's
        running state.
        """
        raise NotImplementedError(
            f"{type(self).__name__} adapts parameters, so it must say by which loss"
        )

    def hear_control(self, prediction: Prediction) -> None:
        """Take in what the control said of a batch, whoever asked it; for methods that learn from
        it.
        """

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Update on finite images, given their prediction; by gradient steps on ``objective``
        unless a subclass says else.
        """
        if not isinstance(self.config, UpdateConfig):
            return Update()
        loss = None
        for step in range(self.config.steps):
            if step:
                prediction = self.predict(images)
            loss = self.objective(images, prediction)
            if not any_of_all(loss is not None, images.device):
                return Update(skipped="all_filtered")
            if loss is None:  # other processes have samples, and wait for this one's gradient
                loss = 0 * prediction.logits.sum()
            self.descend(loss)
        assert loss is not None
        return Update(
            loss=loss.detach(), prediction=prediction.detach() if self.config.steps > 1 else None
        )

    # What callers use

    @torch.enable_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) with which the batch leaves: made before the update that follows, where the
        method allows it.
        """
        self.begin_batch()
        prediction = self.predict(images) if self.predicts_first else None
        update = self.update(images, prediction)
        served = update.prediction or prediction or self.predict(images)
        return served.logits.detach()

    def begin_batch(self) -> None:
        """Restore the source where every batch is an episode of its own."""
        if isinstance(self.config, UpdateConfig) and self.config.episodic:
            self.reset()

    def predict(self, images: Tensor) -> Prediction:
        """Predict with the weights as they are; the result keeps the graph that ``update`` needs,
        if gradients are on.
        """
        with torch.set_grad_enabled(bool(self.adapted) and torch.is_grad_enabled()):
            prediction = self.run(images)
        if not (self.has_learned or self._averaging or self._control_at is images):
            self._control_at, self._control_said, self._heard = images, prediction.detach(), False
        return prediction

    def update(self, images: Tensor, prediction: Prediction | None = None) -> Update:
        """Learn from the images; a non-finite batch leaves all state as it was.

        Args:
            images: (N, channels, ...).
            prediction: what ``predict`` said of them; needed where ``predicts_first``.
        """
        # One read-back to the host a batch; without it a single NaN would end up in weights,
        # moments and marginals.
        finite = bool(torch.isfinite(images if prediction is None else prediction.logits).all())
        if any_of_all(not finite, images.device):
            return Update(skipped="non_finite")
        self.has_learned = not self.static
        self.keep_moving()
        # A method that asks for no prediction makes its own in ``learn``.
        update = self.learn(images, cast(Prediction, prediction))
        self.has_learned = not self.static  # also where it was taken back to the source on the way
        self._forget_moving()
        self._idle = self._idle + 1 if update.skipped == "all_filtered" else 0
        if self._idle == _PATIENCE:
            warnings.warn(
                f"{type(self).__name__} has found no sample to learn from in {_PATIENCE} batches: "
                "its filters reject all, so "
                "it does not adapt; loosen them (entropy_margin, redundancy_margin, "
                "plpd_threshold) or use another method",
                stacklevel=2,
            )
        return update

    @torch.no_grad()
    def control(self, images: Tensor) -> Prediction:
        """Predict with the source's values in every adapted tensor, under the method's own
        normalisation.

        Asked twice about the same tensor, or about one that was predicted before anything was
        learned, it answers from memory.
        """
        if self._control_at is not images or self._control_said is None:
            self._control_at, self._control_said, self._heard = (
                images,
                self.run_control(images),
                True,
            )
        elif not self._heard:
            self.hear_control(self._control_said)
            self._heard = True
        return self._control_said

    @torch.no_grad()
    def source(self, images: Tensor) -> Prediction:
        """Predict as the source model does: its weights, its running statistics."""
        with statistics(self.model, "source"):
            return self.run(images, self._source)

    @torch.no_grad()
    def run_source(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass with the source's values in every adapted tensor, and ``values`` in
        place of others.
        """
        return self.run(images, {**self._source, **(values or {})})

    @torch.no_grad()
    def use_statistics(self, choice: Statistics, values: Mapping[str, Tensor]) -> None:
        """Normalise by another choice of statistics from now on; for ``normalization="auto"``.

        Args:
            choice: which ones.
            values: of moving statistics, by the names of the layers' buffers.
        """
        for layer in self.layers.values():
            layer.statistics = choice
        for name, value in values.items():
            self.model.get_buffer(name).copy_(value)
        self._forget_control()

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start, bit for bit: weights, optimiser moments, running state, random
        generator.
        """
        self.restore_weights()
        buffers = dict(self.named_buffers())
        for name, value in self._start.items():
            buffers[name].copy_(value)
        self.memory = {name: value.clone() for name, value in self._start_memory.items()}
        self.generator.set_state(self._start_generator)
        self._forget_moving()
        self._idle = 0
        self.has_learned = False
        self._control_moving = None
        self._forget_control()

    @torch.no_grad()
    def restore_weights(self) -> None:
        """The source's values in every adapted tensor, and an optimiser that has seen nothing."""
        for name, parameter in self.adapted.items():
            parameter.copy_(self._source[name])
        if self.optimizer is not None:
            assert isinstance(self.config, UpdateConfig)
            self.optimizer.state.clear()
            self.optimizer.zero_grad(set_to_none=True)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr

    @torch.no_grad()
    def restore(self, fraction: float) -> None:
        """Move the adapted weights by ``fraction`` of their distance to the source's; moments start
        afresh.
        """
        for name, parameter in self.adapted.items():
            parameter.lerp_(self._source[name], fraction)
        if self.optimizer is not None:
            self.optimizer.state.clear()

    @torch.no_grad()
    def restore_elements(self, share: float) -> None:
        """The source's value in each element of the adapted tensors that a coin of this probability
        picks.
        """
        for name, parameter in self.adapted.items():
            chosen = (
                torch.rand(parameter.shape, generator=self.generator).to(parameter.device) < share
            )
            parameter.copy_(torch.where(chosen, self._source[name], parameter))

    @torch.no_grad()
    def restore_last(self, share: float) -> None:
        """Reset all but the first 1 − ``share`` of the adapted tensors, rounded up, in the
        network's order.
        """
        first = list(self.adapted)[: math.ceil((1 - share) * len(self.adapted))]
        kept = {name: self.adapted[name].detach().clone() for name in first}
        self.reset()
        for name, value in kept.items():
            self.adapted[name].copy_(value)
        self.has_learned = True

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate, until the next reset."""
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] *= factor

    def reweight(self, prior: Tensor) -> bool:
        """Let the objective aim at these class shares (C,), until the source is reset; False where
        it has no such aim.
        """
        return False

    def adapted_state(self) -> dict[str, Tensor]:
        """Copies of the adapted tensors, by name."""
        return {name: p.detach().clone() for name, p in self.adapted.items()}

    @torch.no_grad()
    def load_adapted_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from adapted tensors; ``reset`` and ``control`` still mean the source."""
        shapes = {name: tuple(p.shape) for name, p in self.adapted.items()}
        if {name: tuple(value.shape) for name, value in state.items()} != shapes:
            raise InputError(
                "the adapted state does not fit: it was written for other layers; use the method "
                "and source it came from"
            )
        for name, parameter in self.adapted.items():
            parameter.copy_(state[name])
        self.has_learned = True

    # What subclasses use

    def run(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass, with ``values`` in place of the tensors of those names."""
        # Where channels last must not be, images that happen to lie so (decoded from pixels, say)
        # must not bring it in.
        images = as_channels_last(images) if self.channels_last else images.contiguous()
        output = (
            self.model(images)
            if not values
            else functional_call(self.model, dict(values), (images,))
        )
        features, self._features = self._features, None
        assert features is not None, "the head did not run"
        return Prediction(as_logits(output, self.num_classes), features)

    def run_apart(
        self, images: Tensor, values: Mapping[str, Tensor], moving: Mapping[str, Tensor]
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """One forward pass with moving statistics of its own, in place of the model's.

        Args:
            images: (N, channels, ...).
            values: in place of the tensors of those names.
            moving: the statistics as they stand, by the names of the layers' buffers.

        Returns:
            The prediction, and the statistics once they have taken the images in; the model's stay
            as they were.
        """
        latest = {name: layer.latest for name, layer in self._averaging.items()}
        prediction = self.run(images, {**values, **moving})
        after = dict(moving)
        for name, layer in self._averaging.items():
            if layer.latest is not None:
                after[f"{name}moving_mean"], after[f"{name}moving_var"] = layer.latest
            layer.latest = latest[name]
        return prediction, after

    def moving_statistics(self) -> dict[str, Tensor]:
        """The model's moving statistics, by the names of the layers' buffers; none where they do
        not move.
        """
        return {
            f"{name}{key}": self.model.get_buffer(f"{name}{key}")
            for name in self._averaging
            for key in ("moving_mean", "moving_var")
        }

    def known(self, name: str) -> Any:
        """What is known of the source by this name.

        Raises:
            InputError: nothing is.
        """
        if self._known.get(name) is None:
            writer = f"train.py{_WRITTEN_BY.get(name, '')}"
            raise InputError(
                f"{type(self).__name__} needs the source's {name}, which is missing: {writer} "
                "writes "
                f"it into source.ckpt; without a checkpoint give {name}=… to create_method"
            )
        return self._known[name]

    def descend(self, loss: Tensor) -> None:
        """One optimiser step along the gradient of the loss."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        self.step()

    def uncertainty(self, logits: Tensor) -> Tensor:
        """What entropy-minimising methods minimise, and filter by: (N,) nats."""
        return entropy(logits)

    def nats(self, fraction: float) -> float:
        """A fraction of the largest entropy that C classes can have, ln C."""
        return fraction * float(torch.tensor(float(self.num_classes)).log())

    @property
    def control_moves(self) -> bool:
        """Whether the control has moving statistics of its own, so that it must see every batch."""
        return bool(self._averaging)

    @torch.no_grad()
    def follow_control(self) -> None:
        """Take over the control's moving statistics, which went on moving while the source served
        and nothing was learned.
        """
        for name, value in (self._control_moving or {}).items():
            self.model.get_buffer(name).copy_(value)

    def keep_moving(self) -> None:
        """Let moving normalisation statistics take in the last batch that was predicted."""
        for layer in self.layers.values():
            layer.keep_moving()

    # How it works

    def _forget_moving(self) -> None:
        """Later passes of an update are not part of the stream, so moving statistics do not take
        them in.
        """
        for layer in self.layers.values():
            layer.latest = None

    def _forget_control(self) -> None:
        """What was said before says nothing of other statistics or of a new start."""
        self._control_at = self._control_said = None

    def run_control(self, images: Tensor) -> Prediction:
        """The control's forward pass; ``control`` remembers what it said."""
        prediction = self._run_control(images)
        self.hear_control(prediction)
        return prediction

    def _run_control(self, images: Tensor) -> Prediction:
        if not self._averaging:
            return self.run(images, self._source)
        # Moving statistics depend on the weights below them, so the control has its own.
        moving = self._control_moving or {
            f"{name}{key}": self._start[f"model.{name}{key}"]
            for name in self._averaging
            for key in ("moving_mean", "moving_var")
        }
        prediction, self._control_moving = self.run_apart(images, self._source, moving)
        return prediction

    def _is_state(self, name: str) -> bool:
        return not name.startswith("model.") or (
            "moving_" in name.rsplit(".", 1)[-1] and not self.chosen_elsewhere
        )

    def _keep_features(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._features = args[0]

    def _create_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        assert isinstance(config, UpdateConfig), (
            "a method that adapts parameters needs an UpdateConfig"
        )
        if config.lr == "auto" or config.optimizer == "auto":
            raise InputError(
                "lr='auto' and optimizer='auto' stand for a choice by network and image size, "
                "which create_method does not "
                "know: give a number, and sgd or adam"
            )
        if config.optimizer == "adam":
            return torch.optim.Adam(self.adapted.values(), lr=config.lr)
        return torch.optim.SGD(self.adapted.values(), lr=config.lr, momentum=config.momentum)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Method":
        # Snapshots follow the module to its device; they are no buffers, since the state dict need
        # not carry them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in ("_source", "_start", "memory", "_start_memory"):
            setattr(self, name, {key: fn(value) for key, value in getattr(self, name).items()})
        self._known = {key: _moved(value, fn) for key, value in self._known.items()}
        self._control_moving = _moved(self._control_moving, fn)
        self._forget_control()
        return self

    def train(self, mode: bool = True) -> "Method":
        """Stay in eval mode whatever a training loop asks: dropout is off, and statistics have a
        choice of their own.
        """
        return super().train(False)

    def get_extra_state(self) -> dict[str, Any]:
        """Optimiser moments and what else is no buffer, so that the state dict is complete."""
        return {
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "memory": dict(self.memory),
            "generator": self.generator.get_state(),
            "control_moving": self._control_moving,
            "idle": self._idle,
            "learned": self.has_learned,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        # Copied, since the method would go on writing into the given tensors.
        state = copy.deepcopy(state)
        if self.optimizer is not None and state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        tensors = {name: state[name] for name in ("memory", "control_moving")}
        tensors = move_data_to_device(
            tensors, next(self.model.parameters()).device
        )  # a file's are on the CPU
        self.memory, self._control_moving = tensors["memory"], tensors["control_moving"]
        self.generator.set_state(state["generator"].cpu())
        self._idle, self.has_learned = state["idle"], state["learned"]
        self._forget_control()


def _moved(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return fn(value)
    return {key: fn(item) for key, item in value.items()} if isinstance(value, Mapping) else value


class NormAffineMethod(Method):
    """A method that adapts weight and bias of every normalisation layer."""

    Config: ClassVar[type[MethodConfig]] = UpdateConfig
    config: UpdateConfig
    passes: ClassVar[str] = "1/1"
    updates: ClassVar[str] = "norm affine"
    #: Whether the published method leaves the last stage of the network alone.
    spares_last_stage: ClassVar[bool] = False

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Weights and biases of the normalisation layers, but the excluded ones."""
        exclude = self.config.exclude
        if exclude is None:
            exclude = last_stage(model) if self.spares_last_stage else []
        return norm_affine(model, exclude)
