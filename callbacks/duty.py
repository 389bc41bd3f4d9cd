"""How often the control runs: on every batch while something happens, ever more rarely while the stream is calm."""

from dataclasses import dataclass, replace

#: While the stream is calm, one check in so many asks all candidates; the others ask the control alone.
_LOOK_EVERY = 4


@dataclass(frozen=True)
class Duty:
    """When the next check is due.

    Attributes:
        next: number of the batch at which it is.
        interval: batches from one check to the next.
        calm: calm checks in a row, so far.
    """

    next: int = 0
    interval: int = 1
    calm: int = 0

    def due(self, batch: int) -> bool:
        """Whether a batch is to be checked."""
        return batch >= self.next

    @property
    def looks(self) -> bool:
        """Whether the next check asks all candidates."""
        return self.calm % _LOOK_EVERY == 0

    def checked(self, batch: int, *, calm: bool, warm_up: int, every: int, longest: int) -> "Duty":
        """The duty after a check.

        Args:
            batch: number of the batch that was checked.
            calm: whether nothing spoke for a closer look.
            warm_up: batches at the start that are all checked.
            every: interval after the first calm check; it doubles with each further one.
            longest: largest interval.
        """
        if not calm or batch < warm_up - 1:
            return Duty(batch + 1)
        interval = min(every if self.interval < every else 2 * self.interval, longest)
        return Duty(batch + interval, interval, self.calm + 1)

    def hurried(self, batch: int) -> "Duty":
        """The duty when something cheap to see calls for a full look at the next batch."""
        return replace(self, next=min(self.next, batch + 1), calm=0)
