"""The adapted model beside its un-updated twin, on the same images: running moments of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import (
    Reference,
    Seen,
    divergence,
    nothing_seen,
    seen_with,
)
from holdfast.callbacks.guard.signals import Compared, measured
from holdfast.callbacks.settings import Tuned
from holdfast.tta.distributed import moments_of_all, total_of_all
from holdfast.tta.marginal import predicted_counts
from holdfast.tta.methods import Prediction
from holdfast.tta.separation import (
    ClassMoments,
    class_moments,
    merge,
    no_moments,
    separation_of,
)
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
        self._grouped: ClassMoments | None = None
        self._own: Seen | None = None
        self._counts: Tensor | None = None

    def compare(self, adapted: Prediction, control: Prediction) -> Tensor:
        """Take a batch in, of all processes.

        Args:
            adapted: what the adapted model says of this process's part of the batch.
            control: what its twin says of the same images.

        Returns:
            (4 + 2·C,) numbers on the device, for ``read``.
        """
        classes, both = self.num_classes, (adapted, control)
        if self.task is None:
            counts = torch.stack([predicted_counts(said.logits.float(), classes) for said in both])
        else:
            counts = torch.stack([self.task.counts(said) for said in both])
            both = (self.task.seen(adapted, control), self.task.seen(control, control))
        logits = torch.stack([said.logits.float() for said in both])
        features = torch.stack([said.features for said in both])
        counts = total_of_all(counts)
        if self._grouped is None or self._own is None or self._counts is None:
            width, device = features.shape[2], features.device
            self._grouped = no_moments(classes, width, device)
            self._own = nothing_seen(classes, width, device)
            self._counts = torch.zeros_like(counts)
        decay = self._decay(counts[1].sum())
        batch = class_moments(features, both[1].logits.argmax(1), classes)
        self._grouped = merge(self._grouped, moments_of_all(batch), decay)
        self._own = seen_with(self._own, logits, features, self.tuned.memory)
        self._counts = self._counts * decay + counts
        apart = separation_of(self._grouped, self.tuned.min_count)
        far = torch.zeros_like(apart)
        if self.source is not None:
            far = divergence(self._own, self.source, self.tuned.prior)
        return torch.cat([apart, far, self._counts.flatten()])

    def read(self, numbers: Sequence[float]) -> dict[str, float | None]:
        """Every signal, from the numbers of ``compare``, read back to the host."""
        answers, expected = counts = np.array(numbers[4:]).reshape(2, self.num_classes)
        moved = None
        if self.task is not None:
            moved = float(self.task.drift(*torch.from_numpy(counts)))
        return measured(Compared(numbers[:2], numbers[2:4], answers, expected, moved))

    def _decay(self, images: Tensor) -> Tensor:
        """What counts of the past when so many images, of all processes, come in."""
        most = _BATCH / (1 - self.tuned.decay) * (1 if self.task is None else self.task.unit)
        window = min(_ENOUGH * self.tuned.min_count * self.num_classes, most)
        return (1 - images / window).clamp(min=self.tuned.decay)

    def class_shares(self) -> Tensor:
        """(C,) shares of the classes among the control's predictions; no class has none."""
        counts = torch.ones(self.num_classes) if self._counts is None else self._counts[1] + 1
        return counts / counts.sum()

    def forget(self) -> None:
        """Start afresh: another control takes over, or the adapted model was corrected."""
        self._grouped = self._own = self._counts = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next signals depend on."""
        return {
            "grouped": self._grouped and list(self._grouped),
            "own": self._own and list(self._own),
            "counts": self._counts,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._grouped = state_dict["grouped"] and ClassMoments(*state_dict["grouped"])
        self._own = state_dict["own"] and Seen(*state_dict["own"])
        self._counts = state_dict["counts"]
