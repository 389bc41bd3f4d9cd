"""The progress of a stream that waits for its images."""

from math import inf

from lightning.pytorch.callbacks import TQDMProgressBar


class Counting(TQDMProgressBar):
    """Counts batches, of which nobody knows how many will come."""

    BAR_FORMAT = "{n_fmt} batches [{elapsed}, {rate_noinv_fmt}{postfix}]"

    @property
    def total_train_batches(self) -> float:
        """None that is known: the loader's length says how many images there is room for."""
        return inf
