"""The adapted model beside its un-updated twin, on the same images: what the guard's verdict is
about.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from callbacks.verdict import Statistics
from tta.distributed import mean_of_all, moments_of_all, total_of_all
from tta.flips import FlipTest, flip_test, flip_votes
from tta.marginal import marginal_drift, predicted_counts, vanished_classes
from tta.methods import Prediction
from tta.rank import effective_rank
from tta.separation import ClassMoments, class_moments, merge, no_moments, separation_of
from tta.sequential import Wager

#: Small batches are remembered for longer, or a window would hold too few images to compare any
#: class: so many times ``min_count`` for each class, which batches of 16 hold for four, but no more
#: than batches of 64 would. (A memory half as long again answers too late: on three of 24 cells in
#: batches of 16 it lost 8 to 10 points.)
_ENOUGH, _BATCH = 1.6, 64


class Comparison:
    """Running class moments and marginals of adapted model and control, both grouped by the
    control's labels, and their flips.

    Args:
        class_names: names of the classes.
        decay: memory of moments and marginals, per check; small batches are remembered for longer.
        min_count: effective samples that a class needs before its moments count.
    """

    def __init__(self, class_names: Sequence[str], decay: float, min_count: float) -> None:
        self.class_names, self.decay, self.min_count = tuple(class_names), decay, min_count
        self._flips = FlipTest()
        self._adapted: ClassMoments | None = None
        self._control: ClassMoments | None = None
        self._counts: Tensor | None = None

    def measure(
        self, adapted: Prediction, control: Prediction, common: Tensor | None, stands_for: int
    ) -> Statistics:
        """Take a batch in, of all processes, and compute the statistics of both.

        Args:
            adapted: what the adapted model says of this process's part of the batch.
            control: what its twin says of the same images.
            common: (C,) how common each class is among predictions so far, for the flip test; None:
                all alike.
            stands_for: how many batches the check stands for.
        """
        classes, labels = len(self.class_names), control.logits.argmax(1)
        counts = [predicted_counts(p.logits, classes) for p in (adapted, control)]
        totals = total_of_all(torch.stack(counts))
        shown = totals[1].sum()
        decay = self._decay(shown)
        if self._adapted is None or self._control is None or self._counts is None:
            start = no_moments(classes, control.features.shape[1], control.features.device)
            self._adapted = self._control = start
            self._counts = torch.zeros(2, classes, device=control.logits.device)
        moments = [
            moments_of_all(class_moments(p.features, labels, classes)) for p in (adapted, control)
        ]
        self._adapted = merge(self._adapted, moments[0], decay)
        self._control = merge(self._control, moments[1], decay)
        self._counts = self._counts * decay + totals
        both = [
            separation_of(self._adapted, self.min_count),
            separation_of(self._control, self.min_count),
        ]
        common = torch.ones_like(counts[1]) if common is None else common
        votes = total_of_all(flip_votes(adapted.logits.argmax(1), labels, common))
        ranks, _ = mean_of_all(
            [effective_rank(p.features) for p in (adapted, control)], len(labels)
        )
        # One read-back to the host for all statistics but the ranks, which fetch their matrices.
        values = torch.stack(
            [
                *both,
                marginal_drift(*self._counts),
                *votes,
                shown,
                *ranks,
                *vanished_classes(*self._counts).float(),
            ]
        ).tolist()
        own, twin, drift, flips, toward, images, own_rank, twin_rank, *vanished = values
        self._flips = flip_test(self._flips, flips, toward)
        return Statistics(
            separation=own if twin > 0 else None,
            ratio=own / twin if twin > 0 else None,
            drift=drift,
            vanished=tuple(
                name for name, gone in zip(self.class_names, vanished, strict=True) if gone
            ),
            lean=self._flips.lean.log_wealth,
            mirror=self._flips.mirror.log_wealth,
            disagreement=flips / images if images else None,
            rank=own_rank / twin_rank if twin_rank > 0 else None,
            stands_for=stands_for,
        )

    def _decay(self, images: Tensor) -> Tensor:
        """What counts of the past, the same in all processes, when a batch of so many images, of
        all of them, comes in.
        """
        window = min(_ENOUGH * self.min_count * len(self.class_names), _BATCH / (1 - self.decay))
        return (1 - images / window).clamp(min=self.decay)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Shares (C,) of the classes among the adapted model's predictions and the control's; no
        class has none.
        """
        counts = torch.ones(2, len(self.class_names)) if self._counts is None else self._counts + 1
        adapted, control = counts / counts.sum(1, keepdim=True)
        return adapted, control

    def forget(self) -> None:
        """Start afresh: another control takes over, or the adapted model was corrected."""
        self._adapted = self._control = self._counts = None
        self._flips = FlipTest()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next statistics depend on."""
        return {
            "flips": [list(wager) for wager in self._flips],
            "adapted": self._adapted and list(self._adapted),
            "control": self._control and list(self._control),
            "counts": self._counts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._flips = FlipTest(*(Wager(*wager) for wager in state_dict["flips"]))
        self._adapted = state_dict["adapted"] and ClassMoments(*state_dict["adapted"])
        self._control = state_dict["control"] and ClassMoments(*state_dict["control"])
        self._counts = state_dict["counts"]
