"""The adapted model beside its un-updated twin, on the same images: running moments of both."""

from typing import Any

import torch
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference, Seen, nothing_seen, seen_with
from holdfast.callbacks.guard.signals import Compared, measured
from holdfast.callbacks.settings import Tuned
from holdfast.tta.distributed import moments_of_all, total_of_all
from holdfast.tta.marginal import predicted_counts
from holdfast.tta.methods import Prediction
from holdfast.tta.separation import ClassMoments, class_moments, merge, no_moments

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
    """

    def __init__(self, num_classes: int, tuned: Tuned, source: Reference | None) -> None:
        self.num_classes, self.tuned, self.source = num_classes, tuned, source
        self._grouped: tuple[ClassMoments, ClassMoments] | None = None
        self._own: tuple[Seen, Seen] | None = None
        self._counts: Tensor | None = None

    def measure(self, adapted: Prediction, control: Prediction) -> Tensor:
        """Take a batch in, of all processes, and measure every signal, on the device (``named``).

        Args:
            adapted: what the adapted model says of this process's part of the batch.
            control: what its twin says of the same images.
        """
        both, labels = (adapted, control), control.logits.argmax(1)
        width, device = control.features.shape[1], control.features.device
        counts = total_of_all(
            torch.stack([predicted_counts(said.logits, self.num_classes) for said in both])
        )
        if self._grouped is None or self._own is None or self._counts is None:
            start = no_moments(self.num_classes, width, device)
            blank = nothing_seen(self.num_classes, width, device)
            self._grouped, self._own = (start, start), (blank, blank)
            self._counts = torch.zeros_like(counts)
        decay = self._decay(counts[1].sum())
        first, second = (
            merge(
                past, moments_of_all(class_moments(said.features, labels, self.num_classes)), decay
            )
            for past, said in zip(self._grouped, both, strict=True)
        )
        own = tuple(
            seen_with(past, said.logits, said.features, self.tuned.memory)
            for past, said in zip(self._own, both, strict=True)
        )
        self._grouped, self._own = (first, second), (own[0], own[1])
        self._counts = self._counts * decay + counts
        finite = torch.isfinite(adapted.logits).all()
        compared = Compared(
            *(first, second, self._counts, self._own, finite.float(), self.source),
            *(self.tuned.min_count, self.tuned.prior),
        )
        return measured(compared)

    def _decay(self, images: Tensor) -> Tensor:
        """What counts of the past when so many images, of all processes, come in."""
        most = _BATCH / (1 - self.tuned.decay)
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
            "grouped": self._grouped and [list(part) for part in self._grouped],
            "own": self._own and [list(part) for part in self._own],
            "counts": self._counts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        grouped, own = state_dict["grouped"], state_dict["own"]
        self._grouped = grouped and (ClassMoments(*grouped[0]), ClassMoments(*grouped[1]))
        self._own = own and (Seen(*own[0]), Seen(*own[1]))
        self._counts = state_dict["counts"]
