"""What a method has learned: how it is stepped, saved, and taken back to the source."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.methods.passes import Passes

#: After so many batches in a row without a sample to learn from, a person should know.
_PATIENCE = 50


class MethodState(Passes):
    """Adapted tensors with the source's values of each, an optimiser, and running state.

    All of it is in the state dict, and ``reset`` takes all of it back to its start, bit for bit.
    Arguments are those of ``Passes``. Then ``open_for_learning`` says what is adapted, and
    ``mark_start`` where ``reset`` leads to.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.adapted: dict[str, nn.Parameter] = {}
        #: The source's value of each adapted tensor, by name; not to be written into.
        self.source_values: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer | None = None
        #: How gradients are made and applied; Lightning puts its own here, for precision and DDP
        #: plugins.
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.step: Callable[[], Any] = lambda: None
        #: Source of every random draw, seeded from torch's seed; on the CPU, so that a stream is
        #: the same on any device.
        self.generator = torch.Generator()
        self.generator.manual_seed(torch.initial_seed() % 2**63)
        #: Running state of shapes that are not known beforehand.
        self.memory: dict[str, Tensor] = {}
        #: Whether an update was tried since the start, which a reset would undo; until then adapted
        #: and control are the same.
        self.has_learned = False
        #: Batches in a row without a sample to learn from.
        self.idle = 0

    def open_for_learning(
        self,
        adapted: dict[str, nn.Parameter],
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        """Let updates change these parameters of the network, by name, and no others."""
        self.model.requires_grad_(False)
        self.adapted = adapted
        for parameter in adapted.values():
            parameter.requires_grad_(True)
        self.source_values = {name: p.detach().clone() for name, p in adapted.items()}
        self.layout.lay_out(self.model)
        if adapted:
            self.optimizer = optimizer(list(adapted.values()))
            self.step = self.optimizer.step
            self._rates = [group["lr"] for group in self.optimizer.param_groups]

    def mark_start(self) -> None:
        """Take the running state as it stands for the start that ``reset`` leads to."""
        self._start = {name: b.clone() for name, b in self.named_buffers() if self._is_state(name)}
        self._start_memory = {name: value.clone() for name, value in self.memory.items()}
        self._start_generator = self.generator.get_state()

    def descend(self, loss: Tensor) -> None:
        """One optimiser step along the gradient of the loss."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        self.step()

    @contextmanager
    def stepping_where(self, sound: Tensor) -> Iterator[None]:
        """Within it optimiser steps change nothing, moments included, unless ``sound`` is true, a
        scalar that stays on its device; for fused optimisers.
        """
        optimizer: Any = self.optimizer
        for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
            for parameter in group["params"] if group["momentum"] else ():
                # What a first step would leave undefined if it came to nothing.
                if not optimizer.state[parameter]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        optimizer.found_inf = sound.logical_not().float()
        try:
            yield
        finally:
            del optimizer.found_inf

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start, bit for bit: weights, optimiser moments, running state, random
        generator.
        """
        self.restore_weights()
        for name, value in self._start.items():  # asked by name: to list all takes longer
            self.get_buffer(name).copy_(value)
        self.memory = {name: value.clone() for name, value in self._start_memory.items()}
        self.generator.set_state(self._start_generator)
        self.forget_moving()
        self.has_learned = False
        self.idle = 0

    @torch.no_grad()
    def restore_weights(self) -> None:
        """The source's values in every adapted tensor, and an optimiser that has seen nothing."""
        if self.adapted:
            source = [self.source_values[name] for name in self.adapted]
            torch._foreach_copy_(list(self.adapted.values()), source)
        if self.optimizer is not None:
            self.optimizer.state.clear()
            self.optimizer.zero_grad(set_to_none=True)
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate

    @torch.no_grad()
    def restore(self, fraction: float) -> None:
        """Move the adapted weights by ``fraction`` of their distance to the source's; moments start
        afresh.
        """
        for name, parameter in self.adapted.items():
            parameter.lerp_(self.source_values[name], fraction)
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
            parameter.copy_(torch.where(chosen, self.source_values[name], parameter))

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

    def adapted_state(self) -> dict[str, Tensor]:
        """Copies of the adapted tensors, by name."""
        return {name: p.detach().clone() for name, p in self.adapted.items()}

    @torch.no_grad()
    def load_adapted_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from adapted tensors; ``reset`` and ``control`` still mean the source.

        Raises:
            InputError: they are others than this method adapts.
        """
        shapes = {name: tuple(p.shape) for name, p in self.adapted.items()}
        if {name: tuple(value.shape) for name, value in state.items()} != shapes:
            raise InputError(
                "the adapted state does not fit: it was written for other layers; use the method "
                "and source it came from"
            )
        for name, parameter in self.adapted.items():
            parameter.copy_(state[name])
        self.has_learned = True

    def count_idle(self, skipped: str | None) -> None:
        """Count batches in a row in which no sample was fit to learn from, and warn of many."""
        self.idle = self.idle + 1 if skipped == "all_filtered" else 0
        if self.idle == _PATIENCE:
            warnings.warn(
                f"{type(self).__name__} has found no sample to learn from in {_PATIENCE} batches: "
                "its filters reject all, so it does not adapt; loosen them (entropy_margin, "
                "redundancy_margin, plpd_threshold) or use another method",
                stacklevel=3,
            )

    def get_extra_state(self) -> dict[str, Any]:
        """Optimiser moments and what else is no buffer, so that the state dict is complete."""
        return {
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "memory": dict(self.memory),
            "generator": self.generator.get_state(),
            "idle": self.idle,
            "learned": self.has_learned,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        if self.optimizer is not None and state["optimizer"] is not None:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.memory = self.taken_up(state["memory"])
        self.generator.set_state(state["generator"].cpu())
        self.idle, self.has_learned = state["idle"], state["learned"]

    def taken_up(self, values: Any) -> Any:
        """Copies of saved tensors, since the method goes on writing into them, on its device, since
        a file's are on the CPU.
        """
        device = next(self.model.parameters()).device
        return moved(copy.deepcopy(values), lambda value: value.to(device))

    def _is_state(self, name: str) -> bool:
        """Whether a buffer is the method's, rather than the source's or somebody else's choice."""
        return not name.startswith("model.") or (
            "moving_" in name.rsplit(".", 1)[-1] and not self.chosen_elsewhere
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Snapshots follow the module to its device; they are no buffers, since the state dict need
        # not carry them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in ("source_values", "_start", "memory", "_start_memory"):
            setattr(self, name, moved(getattr(self, name), fn))
        return self


def moved(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """What ``fn`` makes of a tensor, and of the tensors in nested dictionaries."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, Mapping):
        return {key: moved(item, fn) for key, item in value.items()}
    return value
