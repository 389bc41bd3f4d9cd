"""What every guard has: a position in the stream, a record of what it did, and events that tell of
it.
"""

from typing import Any, Literal

from lightning import Callback

from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction

#: What the outputs say served a batch that several models answered together, and who may have a
#: share in it: the model (or, where that is not trusted, its un-updated twin) and un-updated
#: networks under other statistics.
MIXTURE = "mixture"
SHARES = ("adapted", "control", "source", "batch", "corrected")


class Guard(Callback):
    """Base of the callbacks that judge each batch, correct the module and say what serves; place it
    before the records.

    Attributes:
        batch: number of the batch that comes next, or is being judged.
        alarmed: numbers of the batches that raised an alarm.
        resets: numbers of the batches after which the source was restored.
    """

    def __init__(self) -> None:
        self.batch = 0
        self.alarmed: list[int] = []
        self.resets: list[int] = []

    @property
    def alarms(self) -> int:
        """How many alarms there were."""
        return len(self.alarmed)

    def event(self, kind: str, reason: str, message: str, **more: Any) -> dict[str, Any]:
        """What happened at this batch, as it goes into ``events.jsonl``."""
        return {"batch": self.batch, "event": kind, "reason": reason, "message": message, **more}


def prediction_of(
    guard: Guard, said: Any, method: Literal["training_step", "control"] = "training_step"
) -> Prediction:
    """What a module's outputs say of the batch.

    Args:
        guard: who asks.
        said: by the module: a dictionary, or of a control a ``Prediction``.
        method: that returned it.

    Raises:
        InputError: it lacks logits (N, C) or features (N, D).
    """
    named = said._asdict() if isinstance(said, Prediction) else said
    if not isinstance(named, dict) or not {"logits", "features"} <= named.keys():
        kind = "a dictionary" if method == "training_step" else "a Prediction"
        raise InputError(
            f"{type(guard).__name__} needs a {method} that returns {kind} with 'logits' and "
            "'features'"
        )
    for name in ("logits", "features"):
        if named[name].dim() != 2:
            shape = tuple(named[name].shape)
            raise InputError(
                f"{type(guard).__name__} needs a row an image, and {name} of {method} have shape "
                f"{shape}: flatten them"
            )
    return Prediction(named["logits"], named["features"])
