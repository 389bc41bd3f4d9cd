"""The un-updated twins of an adapting network: the control, and the source."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from holdfast.tta.methods.prediction import Prediction
from holdfast.tta.methods.state import MethodState, moved
from holdfast.tta.normalization import Statistics, statistics


class Controlled(MethodState):
    """What the network would say had it never learned: no second model, but the source's values in
    every adapted tensor of the same one.

    The *control* predicts under the method's own statistics, the *source* under its running ones.
    Where statistics move with the stream, they depend on the weights below them, so the control has
    moving ones of its own, and must see every batch.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._control_moving: dict[str, Tensor] | None = None
        #: The images that the control was last asked about, what it said, and whether the method
        #: has heard of it.
        self._asked: Tensor | None = None
        self._said: Prediction | None = None
        self._heard = False

    def hear_control(self, prediction: Prediction) -> None:
        """Take in what the control said of a batch, whoever asked it; for methods that learn from
        it.
        """

    @torch.no_grad()
    def control(self, images: Tensor) -> Prediction:
        """Predict with the source's values in every adapted tensor, under the method's own
        normalisation.

        Asked twice about the same tensor, or about one that was predicted before anything was
        learned, it answers from memory.
        """
        if self._asked is not images or self._said is None:
            self._asked, self._said, self._heard = images, self.run_control(images), True
        elif not self._heard:
            self.hear_control(self._said)
            self._heard = True
        return self._said

    @torch.no_grad()
    def source(self, images: Tensor) -> Prediction:
        """Predict as the source model does: its weights, its running statistics."""
        with statistics(self.model, "source"):
            return self.run(images, self.source_values)

    @torch.no_grad()
    def run_source(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass with the source's values in every adapted tensor, and ``values`` in
        place of others.
        """
        return self.run(images, {**self.source_values, **(values or {})})

    def run_control(self, images: Tensor) -> Prediction:
        """The control's forward pass; ``control`` remembers what it said."""
        prediction = self._run_control(images)
        self.hear_control(prediction)
        return prediction

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

    def note_unlearned(self, images: Tensor, prediction: Prediction) -> None:
        """Remember a prediction as the control's where nothing was learned yet, since they are one
        then.
        """
        if not (self.has_learned or self._averaging or self._asked is images):
            self._asked, self._said, self._heard = images, prediction.detach(), False

    def use_statistics(self, choice: Statistics, values: Mapping[str, Tensor]) -> None:
        """Normalise by another choice of statistics; see ``Passes``."""
        super().use_statistics(choice, values)
        self._forget_control()

    def reset(self) -> None:
        """Back to the start; see ``MethodState``."""
        super().reset()
        self._control_moving = None
        self._forget_control()

    def get_extra_state(self) -> dict[str, Any]:
        """See ``MethodState``; the control's moving statistics."""
        return {**super().get_extra_state(), "control_moving": self._control_moving}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        super().set_extra_state(state)
        self._control_moving = self.taken_up(state["control_moving"])
        self._forget_control()

    def _run_control(self, images: Tensor) -> Prediction:
        if not self._averaging:
            return self.run(images, self.source_values)
        moving = self._control_moving or {
            name: self._start[f"model.{name}"] for name in self.moving_statistics()
        }
        prediction, self._control_moving = self.run_apart(images, self.source_values, moving)
        return prediction

    def _forget_control(self) -> None:
        """What was said before says nothing of other statistics or of a new start."""
        self._asked = self._said = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._control_moving = moved(self._control_moving, fn)
        self._forget_control()
        return self
