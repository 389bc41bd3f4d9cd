"""How often the guard looks: on every batch while something happens, ever more rarely while the
stream is calm.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from holdfast.callbacks.settings import Tuned
from holdfast.tta.marginal import chance_drift, marginal_drift

#: Most batches between two looks while something speaks against the adapted model.
_WATCHED = 4
#: By how much a jump of the predicted mix must exceed what chance makes of so few images, and the
#: change that always calls for a look, since hardly anything is left.
_BY_MORE, _ALL = 0.25, 0.98
#: How fast the predicted mix that a jump is seen against follows the stream.
_FOLLOWS = 0.3


class Glance(NamedTuple):
    """What is seen of every batch.

    Attributes:
        finite: whether all logits of the adapted model are.
        startled: whether the predicted mix jumped.
    """

    finite: bool = True
    startled: bool = False

    @property
    def calls(self) -> bool:
        """Whether it calls for a look."""
        return self.startled or not self.finite

    @property
    def values(self) -> dict[str, float | None]:
        """What it tells of the signals."""
        return {} if self.finite else {"non_finite": 1.0}


@dataclass(frozen=True)
class Schedule:
    """When the next look is due.

    Attributes:
        next_look: number of the batch.
        calm_since: number of the batch at which something happened last.
        last_look: number of the batch that was looked at last.
        watching: whether that look called for a watch, so that the next stands for all batches
            since.
        mix: running counts of predictions by class; empty at the start.
    """

    next_look: int = 0
    calm_since: int = 0
    last_look: int = -1
    watching: bool = False
    mix: tuple[float, ...] = ()

    def glanced(self, numbers: ArrayLike, tuned: Tuned) -> tuple["Schedule", Glance]:
        """The schedule after a batch came, and what a glance tells of it.

        Args:
            numbers: above 0 where it is broken, and the predictions by class.
            tuned: the jump that startles.
        """
        broken, *each = np.asarray(numbers, np.float64)
        counts = np.array(each)
        known = np.array(self.mix or counts)
        units, seen = counts.sum(), known.sum()
        finite, startled = not broken, False
        if units and seen:
            level = max(tuned.jump, chance_drift(known / seen, units) + _BY_MORE)
            startled = bool(marginal_drift(counts, known) > min(level, _ALL))
        if finite:
            known = known + _FOLLOWS * (counts - known)
        return replace(self, mix=tuple(known.tolist())), Glance(finite, startled)

    def due(self, batch: int) -> bool:
        """Whether a batch is to be looked at."""
        return batch >= self.next_look

    def stands_for(self, batch: int) -> int:
        """How many batches a look at this one stands for."""
        return max(1, batch - self.last_look) if self.watching else 1

    def looked(self, batch: int, tuned: Tuned, *, watching: bool, again: bool) -> "Schedule":
        """The schedule after a look: the next one is due after a share of the time that the stream
        has been calm.

        Args:
            batch: number of the batch.
            tuned: patience and the longest interval.
            watching: whether something speaks against the adapted model.
            again: whether the next is looked at as well: after a jump, since one batch tells it
                from a chance mix badly, and while several serve, who are asked anyway.
        """
        interval = max(1, min((batch + 1 - self.calm_since) // tuned.patience, tuned.longest))
        if watching:
            interval = min(interval, _WATCHED)
        if again:
            interval = 1
        return replace(self, next_look=batch + interval, last_look=batch, watching=watching)

    def stirred(self, batch: int) -> "Schedule":
        """The schedule after something happened: the next batch is looked at, and calm starts
        anew.
        """
        return Schedule(batch + 1, batch + 1, batch, mix=self.mix)
