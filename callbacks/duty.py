"""How often the guard looks: on every batch while something happens, ever more rarely while the
stream is calm.
"""

from dataclasses import dataclass, replace

#: Variation of the predicted mix between batches, in units of chance, that is suspect; and how much
#: larger than the last suspect one it must be to be suspect again. An adapting model's mix varies
#: somewhat more than chance for good.
_SUSPECT, _MORE = 0.7, 1.4
#: Most batches between two checks while watching.
_WATCHED = 4


@dataclass(frozen=True)
class Duty:
    """When the next look is due.

    Attributes:
        next_check: number of the batch at which the control is asked.
        next_look: number of the batch at which all candidates are.
        calm_since: number of the batch at which something happened last.
        suspect: variation of the predicted mix from which on calm starts anew.
        watched: number of the batch that was checked last, where that was a watch; None: it was
            not.
        startled: number of the batch at which a jump called for a look last; None: none has.
    """

    next_check: int = 0
    next_look: int = 0
    calm_since: int = 0
    suspect: float = _SUSPECT
    watched: int | None = None
    startled: int | None = None

    def checks(self, batch: int) -> bool:
        """Whether a batch is compared with the control's."""
        return batch >= self.next_check

    def stands_for(self, batch: int) -> int:
        """How many batches a check at this one stands for: while watching, those since the last
        check.
        """
        return 1 if self.watched is None else max(1, batch - self.watched)

    def looks(self, batch: int) -> bool:
        """Whether all candidates predict a batch."""
        return batch >= self.next_look

    def looked(self, batch: int, patience: int, longest: int) -> "Duty":
        """The duty after a look: the next one is due after a share of the time that the stream has
        been calm.

        One batch tells a jump from a chance mix badly, so after a look that a jump called for the
        next batch is checked.

        Args:
            batch: number of the batch.
            patience: calm batches for each batch of the interval.
            longest: largest interval.
        """
        interval = max(1, min((batch + 1 - self.calm_since) // patience, longest))
        next_check = batch + 1 if self.startled == batch else batch + interval
        return replace(self, next_check=next_check, next_look=batch + interval)

    def watching(self, batch: int, room: float) -> "Duty":
        """The duty while watching: the next check is due when half the room until an alarm can be
        used up.

        A watch lasts up to the next look, for a slow drift falls below its level now and then.

        Args:
            batch: number of the batch, which was checked.
            room: batches until an alarm if things go on as they are (``Decision.room``).
        """
        interval = max(1, int(min(room / 2, _WATCHED)))
        return replace(
            self, next_check=min(batch + interval, max(self.next_look, batch + 1)), watched=batch
        )

    def missed(self, batch: int) -> "Duty":
        """The duty after a check that could not be made: the next batch is checked in its place,
        and it does not count.
        """
        return replace(
            self, next_check=batch + 1, watched=None if self.watched is None else self.watched + 1
        )

    def unwatched(self) -> "Duty":
        """The duty after a check that calls for none: nobody knows when what the next watch finds
        will have begun.
        """
        return replace(self, watched=None)

    def alerted(self, batch: int) -> "Duty":
        """The duty after something happened: the next batch is looked at, and calm starts anew."""
        return Duty(batch + 1, batch + 1, batch + 1, self.suspect)

    def corrected(self, batch: int, rest: int, *, unmoved: bool) -> "Duty":
        """The duty after an alarm that says nothing of the statistics: calm starts anew, and
        candidates wait out the rest.

        Args:
            batch: number of the batch.
            rest: batches without updates.
            unmoved: whether the model is its own control meanwhile, or pauses as it is: there is
                nothing to check.
        """
        over = batch + 1 + rest
        return Duty(over if unmoved else batch + 1, over, batch + 1, self.suspect)

    def cleared(self) -> "Duty":
        """The duty when a check beside the looks finds nothing amiss: the next one is due when
        candidates are asked.
        """
        return replace(self, next_check=self.next_look, watched=None)

    def suspected(self, batch: int, variation: float) -> "Duty":
        """The duty when the predicted mix varies by as much as is suspect: calm starts anew, until
        it varies by still more.

        Args:
            batch: number of the batch, which is looked at.
            variation: of the mix.
        """
        return Duty(batch, batch, batch, _MORE * variation, self.watched)

    def hurried(self, batch: int) -> "Duty":
        """The duty when a jump of the predicted mix, cheap to see, calls for a look at this
        batch.
        """
        return replace(self, next_check=batch, next_look=batch, startled=batch)
