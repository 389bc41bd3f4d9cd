"""What every guard has: a position in the stream, a record of what it did, and events that tell of
it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from holdfast.callbacks.guard.modes import Verdict
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction
from holdfast.tta.stages import STEPS, StreamCallback
from holdfast.tta.step import VerdictState
from holdfast.tta.tasks import Task


class Guard(StreamCallback):
    """Base of the callbacks that judge each batch, correct the module and say what serves; place it
    before the records.

    Attributes:
        batch: number of the batch that comes next, or is being judged.
        images: how many images this process had before it.
        alarmed: numbers of the batches that raised an alarm.
        resets: numbers of the batches after which the source was restored.
        state: of the last verdict.
        step: name of the module's step whose outputs are judged.
        task: what predictions are of; None: images with one label.
    """

    def __init__(self) -> None:
        self.batch = 0
        self.images = 0
        self.alarmed: list[int] = []
        self.resets: list[int] = []
        self.state: VerdictState = "OK"
        self.step = STEPS["fit"]
        self.task: Task | None = None

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        return type(self).__name__

    @property
    def needs(self) -> Sequence[str]:
        """Functions that the guarded module must have."""
        return ()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse, before any image is seen, a module that cannot be guarded, and a place behind
        what writes.

        Raises:
            InputError: the module lacks what the guard needs, or a writer would come first.
        """
        self.step = STEPS[stage]
        missing = [need for need in self.needs if not callable(getattr(pl_module, need, None))]
        if missing:
            raise InputError(
                f"{self.name} needs {' and '.join(f'{need}()' for need in missing)} of "
                f"{type(pl_module).__name__}: define them, or use AdaptationModule"
            )
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = callbacks[: callbacks.index(self)]
        writers = [other for other in before if isinstance(other, BasePredictionWriter)]
        if writers:
            raise InputError(
                f"{type(writers[0]).__name__} would write what {self.name} has not seen yet: "
                f"place {type(self).__name__} before it in Trainer(callbacks=[...])"
            )

    @property
    def alarms(self) -> int:
        """How many alarms there were."""
        return len(self.alarmed)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdict depends on, and nothing of the settings; a subclass adds
        what else it remembers.
        """
        return {
            "batch": self.batch,
            "images": self.images,
            "alarmed": list(self.alarmed),
            "resets": list(self.resets),
            "state": self.state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.batch, self.images = state_dict["batch"], state_dict["images"]
        self.alarmed, self.resets = list(state_dict["alarmed"]), list(state_dict["resets"])
        self.state = state_dict["state"]

    def marked(self) -> Callable[[], None]:
        """The way back to where the guard stands now, in memory."""
        state = copy.deepcopy(self.state_dict())
        return lambda: self.load_state_dict(state)

    def turned(self, verdict: Verdict, **more: Any) -> list[dict[str, Any]]:
        """Keep the verdict's state; its event where that is another than the last one's."""
        before, self.state = self.state, verdict.state
        if verdict.state == before:
            return []
        reason, message = verdict.reason, verdict.message
        return [self.event("verdict", reason, message, state=verdict.state, **more)]

    def event(self, kind: str, reason: str, message: str, **more: Any) -> dict[str, Any]:
        """What happened at this batch, as it goes into ``events.jsonl``."""
        return {"batch": self.batch, "event": kind, "reason": reason, "message": message, **more}


def prediction_of(guard: Guard, said: Any, method: str) -> Prediction:
    """What a module says of the batch.

    Args:
        guard: who asks.
        said: by the module: a dictionary, or of a control a ``Prediction``.
        method: that returned it, ``control`` or the guard's ``step``.

    Raises:
        InputError: it lacks logits (N, C) or features (N, D).
    """
    rows = said if isinstance(said, Prediction) else _rows_in(said)
    if rows is not None and rows.output is not None:
        return rows
    named = said._asdict() if isinstance(said, Prediction) else said
    if not isinstance(named, dict) or not {"logits", "features"} <= named.keys():
        kind = "a Prediction" if method == "control" else "a dictionary"
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


def _rows_in(outputs: Any) -> Prediction | None:
    """The rows that a step leaves where its logits are none; None where they are."""
    rows = outputs.get("rows") if isinstance(outputs, dict) else None
    return rows if isinstance(rows, Prediction) else None
