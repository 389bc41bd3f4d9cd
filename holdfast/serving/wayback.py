"""The way back to before a batch that failed: a service goes on then as a restarted one would."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.callbacks import CollapseGuard
from holdfast.callbacks.base import Guard
from holdfast.callbacks.stream_checkpoint import changing
from holdfast.tta.adaptation import AdaptationModule

#: The name by which a state dict has what is no tensor.
_EXTRA = "_extra_state"


class WayBack:
    """Keeps, in memory, what a batch may change of module and guard: what a checkpoint of the
    stream has of them, and torch's own generator. Nothing in an update draws from others.

    Args:
        module: that serves.
        guard: that watches it; None: nobody does.
    """

    def __init__(self, module: AdaptationModule, guard: Guard | None) -> None:
        self.module, self.guard = module, guard
        # Found once, and written over: to list a state dict and to make room takes longer.
        places = [(name, *_place(module, name)) for name in changing(module)]
        self._extras = [place for place in places if place[2] == _EXTRA]
        self._tensors = [place for place in places if place[2] != _EXTRA]
        self._kept = [getattr(owner, leaf).detach().clone() for _, owner, leaf in self._tensors]
        self._told: dict[str, Any] = {}
        self.mark()

    @torch.no_grad()
    def mark(self) -> None:
        """Here begins a batch."""
        self._drawn = torch.get_rng_state()
        now = [getattr(owner, leaf) for _, owner, leaf in self._tensors]
        if now:
            torch._foreach_copy_(self._kept, now)
        self._told = {name: _copied(owner.get_extra_state()) for name, owner, _ in self._extras}
        self._guard_back = None if self.guard is None else self.guard.marked()

    def go_back(self) -> None:
        """Bring module and guard to where the batch began."""
        names = [name for name, *_ in self._tensors]
        bring(self.module, {**dict(zip(names, self._kept, strict=True)), **self._told})
        self.module.method.forget_moving()
        if self._guard_back is not None:
            self._guard_back()
        if isinstance(self.guard, CollapseGuard):
            self.guard.start(self.module)  # which waits where the guard waits
        torch.set_rng_state(self._drawn)


def bring(module: AdaptationModule, state: Mapping[str, Any]) -> None:
    """Bring a module to where ``changing`` was taken of it."""
    module.load_state_dict({**module.state_dict(), **state})
    if module.twins is not None:
        module.twins.use(module.twins.current)


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Whose attribute an entry of a state dict is."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _copied(value: Any) -> Any:
    """A copy that nobody writes into."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return copy.deepcopy(value)
