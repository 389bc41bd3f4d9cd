"""The adapted model beside its un-updated twin, on the same images: running moments of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference, Seen
from holdfast.callbacks.guard.heard import Asked, Heard
from holdfast.callbacks.guard.signals import Compared, measured
from holdfast.callbacks.settings import Tuned
from holdfast.tta.distributed import total_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.separation import ClassMoments
from holdfast.tta.tasks import Task

#: Small batches are remembered for longer, or a window would hold too few images to compare any
#: class: so many times ``min_count`` for each class, which batches of 16 hold for four, but no more
#: than batches of 64 would.
_ENOUGH, _BATCH = 1.6, 64


class Health:
    """Running class moments and marginals of both, grouped by the control's labels.

    Args:
        num_classes: C.
        tuned: constants.
        source: the source's classes; None: whether learning brings classes nearer is not known.
        task: what predictions are of; None: images with one label.
    """

    def __init__(
        self,
        num_classes: int,
        tuned: Tuned,
        source: Reference | None,
        task: Task | None = None,
    ) -> None:
        self.num_classes, self.tuned, self.source, self.task = num_classes, tuned, source, task
        #: Of the adapted model, then of its control.
        self._grouped: list[ClassMoments] = []
        self._own: list[Seen] = []
        self._counts: NDArray[Any] | None = None

    def asks(self, adapted: Prediction, control: Prediction) -> list[Asked]:
        """What ``compare`` has to be told of a batch: of the adapted model, and of its twin.

        Args:
            adapted: what the adapted model says of this process's part of it.
            control: what its twin says of the same images.
        """
        return [self._asked(said, control) for said in (adapted, control)]

    def compare(self, both: Sequence[Heard]) -> dict[str, float | None]:
        """Take a batch in: every signal, by name.

        Args:
            both: what ``asks`` asked for.
        """
        if not self._grouped:
            self._begin(both[0].features.shape[1])
        counts = np.stack([self._answers(said) for said in both])
        decay = self._decay(counts[1].sum())
        labels = both[1].logits.argmax(1)
        for said, grouped, own in zip(both, self._grouped, self._own, strict=True):
            grouped.take(said.features, labels, decay)
            own.take(said.logits, said.features)
        self._counts = counts if self._counts is None else self._counts * decay + counts
        moved = None
        if self.task is not None:
            answers, expected = torch.from_numpy(self._counts)
            moved = float(self.task.drift(answers, expected))
        apart = [grouped.separation(self.tuned.min_count) for grouped in self._grouped]
        far = [own.divergence for own in self._own]
        return measured(Compared(apart, far, self._counts[0], self._counts[1], moved))

    def class_shares(self) -> Tensor:
        """(C,) shares of the classes among the control's predictions; no class has none."""
        counts = np.zeros(self.num_classes) if self._counts is None else self._counts[1]
        counts = counts + 1
        return torch.from_numpy(counts / counts.sum()).float()

    def forget(self) -> None:
        """Start afresh: another control takes over, or the adapted model was corrected."""
        self._grouped, self._own, self._counts = [], [], None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next signals depend on."""
        return {
            "grouped": [one.state_dict() for one in self._grouped],
            "own": [one.state_dict() for one in self._own],
            "counts": None if self._counts is None else torch.from_numpy(self._counts.copy()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.forget()
        if state_dict["counts"] is not None:
            self._counts = state_dict["counts"].cpu().numpy().copy()
            self._begin(state_dict["grouped"][0]["mean"].shape[1])
        for grouped, state in zip(self._grouped, state_dict["grouped"], strict=True):
            grouped.load_state_dict(state)
        for own, state in zip(self._own, state_dict["own"], strict=True):
            own.load_state_dict(state)

    def _asked(self, said: Prediction, control: Prediction) -> Asked:
        counts = None
        if self.task is not None:
            counts = total_of_all(self.task.counts(said))
            said = self.task.seen(said, control)
        return Asked(said.logits, said.features, counts=counts).of_all()

    def _begin(self, width: int) -> None:
        shape, tuned = (self.num_classes, width), self.tuned
        self._grouped = [ClassMoments(*shape) for _ in range(2)]
        self._own = [Seen(*shape, tuned.memory, tuned.prior, self.source) for _ in range(2)]

    def _answers(self, said: Heard) -> NDArray[Any]:
        """(C,) predictions by class; rows that are not finite count for none."""
        if self.task is not None:
            return said.counts
        finite = np.isfinite(said.logits).all(1)
        return np.bincount(said.logits[finite].argmax(1), minlength=self.num_classes)

    def _decay(self, images: float) -> float:
        """What counts of the past when so many images, of all processes, come in."""
        most = _BATCH / (1 - self.tuned.decay) * (1 if self.task is None else self.task.unit)
        window = min(_ENOUGH * self.tuned.min_count * self.num_classes, most)
        return max(1 - images / window, self.tuned.decay)
