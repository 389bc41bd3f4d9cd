"""How often the guard looks: on every batch while something happens, ever more rarely while the stream is calm."""

from dataclasses import dataclass, replace

#: Variation of the predicted mix between batches, in units of chance, that is suspect; and how much larger than the last
#: suspect one it must be to be suspect again. An adapting model's mix varies somewhat more than chance for good.
_SUSPECT, _MORE = 0.7, 1.4


@dataclass(frozen=True)
class Duty:
    """When the next look is due.

    Attributes:
        next_check: number of the batch at which the control is asked.
        next_look: number of the batch at which all candidates are.
        calm_since: number of the batch at which something happened last.
        suspect: variation of the predicted mix from which on calm starts anew.
    """

    next_check: int = 0
    next_look: int = 0
    calm_since: int = 0
    suspect: float = _SUSPECT

    def checks(self, batch: int) -> bool:
        """Whether a batch is compared with the control's."""
        return batch >= self.next_check

    def looks(self, batch: int) -> bool:
        """Whether all candidates predict a batch."""
        return batch >= self.next_look

    def looked(self, batch: int, patience: int, longest: int) -> "Duty":
        """The duty after a look: the next one is due after a share of the time that the stream has been calm.

        Args:
            batch: number of the batch.
            patience: calm batches for each batch of the interval.
            longest: largest interval.
        """
        interval = max(1, min((batch + 1 - self.calm_since) // patience, longest))
        return replace(self, next_check=batch + interval, next_look=batch + interval)

    def watching(self, batch: int) -> "Duty":
        """The duty while the verdict is WATCH: the next batch is compared with the control's, and so are those up to the next
        look, for a slow drift falls below the watch now and then."""
        return replace(self, next_check=batch + 1)

    def alerted(self, batch: int) -> "Duty":
        """The duty after something happened: the next batch is looked at, and calm starts anew."""
        return Duty(batch + 1, batch + 1, batch + 1, self.suspect)

    def suspected(self, batch: int, variation: float) -> "Duty":
        """The duty when the predicted mix varies by as much as is suspect: calm starts anew, until it varies by still more.

        Args:
            batch: number of the batch, which is looked at.
            variation: of the mix.
        """
        return Duty(batch, batch, batch, _MORE * variation)

    def hurried(self, batch: int) -> "Duty":
        """The duty when something cheap to see calls for a look at this batch."""
        return replace(self, next_check=min(self.next_check, batch), next_look=min(self.next_look, batch))
