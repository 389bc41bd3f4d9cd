"""The rest after a correction: batches without updates, and what serves them."""

from dataclasses import dataclass

from torch import Tensor

#: Checks in a row that must find nothing amiss before a corrected model serves again while it
#: rests.
_SOUND = 2


@dataclass
class Rest:
    """How a module rests.

    Attributes:
        left: batches without updates that are still to come.
        sound: checks in a row, since the correction, that knew R and found nothing amiss.
        idle: whether the module is at the source and stays there for now, so that adapted model and
            control are one.
        shift: (C,) what is added to the adapted logits meanwhile; None: nothing.
    """

    left: int = 0
    sound: int = 0
    idle: bool = False
    shift: Tensor | None = None

    @property
    def doubted(self) -> bool:
        """Whether the correction left some of the harm in place, and the model has not been found
        sound since.
        """
        return self.left > 0 and not self.idle and self.shift is None and self.sound < _SOUND

    @property
    def cleared(self) -> bool:
        """Whether the model, which does not move, has been found sound."""
        return self.left > 0 and self.sound >= _SOUND

    def pass_batch(self, found_sound: bool | None) -> None:
        """Count a batch.

        Args:
            found_sound: whether it was checked, and nothing found amiss; None: R is unknown, which
                tells nothing.
        """
        self.left = max(self.left - 1, 0)
        if found_sound is not None:
            self.sound = self.sound + 1 if found_sound else 0

    def end(self) -> None:
        """Updates go on."""
        self.idle, self.shift = False, None
