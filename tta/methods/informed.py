"""What a method is told: of the source, of the task, and of views of its images."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.methods.control import Controlled
from holdfast.tta.methods.prediction import Prediction
from holdfast.tta.methods.state import moved
from holdfast.tta.views import moved_back, view_with_move

#: The option of train.py that makes it write a statistic, where there is one.
_WRITTEN_BY = {"fisher": " fisher_images=2000"}


class Informed(Controlled):
    """What objectives use besides ``run``, ``descend`` and the rest beneath."""

    def __init__(self, *arguments: Any, known: Mapping[str, Any] | None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._known = dict(known or {})

    def known(self, name: str) -> Any:
        """What is known of the source by this name.

        Raises:
            InputError: nothing is.
        """
        if self._known.get(name) is None:
            writer = f"train.py{_WRITTEN_BY.get(name, '')}"
            raise InputError(
                f"{type(self).__name__} needs the source's {name}, which is missing: {writer} "
                f"writes it into source.ckpt; without a checkpoint give {name}=… to create_method"
            )
        return self._known[name]

    def run_view(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass on a random view of each image, with ``values`` in place of the tensors
        of those names; what is said of pixels is moved back to where they were.
        """
        view, back = self.viewed(images)
        return self.run(view, values, back)

    def viewed(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """A random view of each image, and what ``run`` needs to move back what is said of its
        pixels; None where nothing is.
        """
        view, move = view_with_move(images, self.generator)
        return view, (lambda maps: moved_back(maps, move)) if self.task.dense else None

    def uniform(self) -> Tensor:
        """(C,), or of groups (G·C,): an equal share for each class of a row."""
        return torch.full((self.task.cells,), 1 / self.num_classes)

    def nats(self, fraction: float) -> float:
        """A fraction of the largest entropy that C classes can have, ln C."""
        return fraction * float(torch.tensor(float(self.num_classes)).log())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._known = moved(self._known, fn)
        return self
