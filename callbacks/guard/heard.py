"""What models say of a batch, brought to the host with one read-back: there all is measured that
the guard measures, so that a device has nothing to launch for it. Several processes put their rows
together before.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.tta.distributed import place, rows_of_all

#: Numbers on the host, in single precision.
Array = NDArray[np.float32]


class Asked(NamedTuple):
    """What is to be known of one model, where it was computed.

    Attributes:
        logits: (M, C) of the rows.
        features: (M, D) of the rows.
        doubt: (N,) how little the model agrees with itself on each image (``Prediction.doubt``).
        found: (N,) share of each image that is called anything but the first class.
        counts: numbers of any other kind, of all processes.
    """

    logits: Tensor | None = None
    features: Tensor | None = None
    doubt: Tensor | None = None
    found: Tensor | None = None
    counts: Tensor | None = None

    def of_all(self) -> "Asked":
        """The rows of all processes, which wait for each other once for those of a kind; counts
        are those of all already.
        """
        logits, features = _of_all(self.logits, self.features)
        doubt, found = _of_all(self.doubt, self.found)
        return Asked(logits, features, doubt, found, self.counts)


def _of_all(first: Tensor | None, second: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Rows of two kinds, as many of each, of all processes."""
    if first is None or second is None or place()[1] == 1:
        return first, second
    both = [part.float().reshape(len(part), part.shape[1:].numel()) for part in (first, second)]
    rows, width = rows_of_all(torch.cat(both, 1)), both[0].shape[1]
    one, other = rows[:, :width], rows[:, width:]
    return one.reshape(len(rows), *first.shape[1:]), other.reshape(len(rows), *second.shape[1:])


_NONE: Array = np.zeros(0, np.float32)


class Heard(NamedTuple):
    """The same on the host; what was not asked for is empty."""

    logits: Array = _NONE
    features: Array = _NONE
    doubt: Array = _NONE
    found: Array = _NONE
    counts: Array = _NONE


@torch.no_grad()
def read_back(asked: Collection[Asked]) -> list[Heard]:
    """Bring to the host what is asked for, all at once, in its order."""
    wanted = [value for one in asked for value in one if value is not None]
    rows = [value.float().flatten() for value in wanted]
    if not rows:
        return [Heard() for _ in asked]
    together = (torch.cat(rows) if len(rows) > 1 else rows[0]).cpu().numpy()
    parts = iter(np.split(together, np.cumsum([value.numel() for value in wanted])))
    return [
        Heard(*(_NONE if like is None else next(parts).reshape(like.shape) for like in one))
        for one in asked
    ]
