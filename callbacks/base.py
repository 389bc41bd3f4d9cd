"""What every guard has: a position in the stream, a record of what it did, and events that tell of it."""

from typing import Any

from lightning import Callback

from tta.errors import InputError
from tta.methods import Prediction


class Guard(Callback):
    """Base of the callbacks that judge each batch, correct the module and say what serves; place it before the records.

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


def prediction_of(guard: Guard, outputs: Any) -> Prediction:
    """What a training step's outputs say of the batch.

    Raises:
        InputError: they lack logits or features.
    """
    if not isinstance(outputs, dict) or not {"logits", "features"} <= outputs.keys():
        name = type(guard).__name__
        raise InputError(f"{name} needs a training step that returns a dictionary with 'logits' and 'features'")
    return Prediction(outputs["logits"], outputs["features"])
