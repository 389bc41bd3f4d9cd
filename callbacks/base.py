"""What acts on each batch of a stream, in every stage of the Trainer; and what every guard has: a
position in the stream, a record of what it did, and events that tell of it.
"""

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.trainer.states import TrainerFn

from holdfast.tta.errors import InputError
from holdfast.tta.methods import Prediction
from holdfast.tta.stages import STEPS, as_in_fit

#: What the outputs say served a batch that several models answered together, and who may have a
#: share in it: the model (or, where that is not trusted, its un-updated twin) and un-updated
#: networks under other statistics.
MIXTURE = "mixture"
SHARES = ("adapted", "control", "source", "batch", "corrected")


class StreamCallback(Callback):
    """Base of callbacks that act on each batch before it leaves, in whichever of the Trainer's
    stages the stream runs: ``fit``, ``validate``, ``test`` or ``predict``.

    A subclass says what it does in ``on_stream_start``, ``on_served`` and ``on_stream_end``. The
    validation that ``fit`` makes between its batches is no stream.
    """

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first batch, when the module is on its device."""

    def on_served(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called with what the module's step returned; what is changed in it leaves so."""

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called behind the last batch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stream runs in ``fit``."""
        self.on_stream_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch in ``fit``."""
        self.on_served(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``fit``."""
        self.on_stream_end(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stream runs in ``validate``."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_test_start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A batch in ``validate``."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``validate``."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_test_end(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stream runs in ``test``, or in another stage that is no training."""
        with as_in_fit():
            self.on_stream_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A batch in ``test``."""
        with as_in_fit():
            self.on_served(trainer, pl_module, outputs, batch, batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``test``."""
        with as_in_fit():
            self.on_stream_end(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stream runs in ``predict``."""
        self.on_test_start(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A batch in ``predict``."""
        self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``predict``."""
        self.on_test_end(trainer, pl_module)


class Guard(StreamCallback):
    """Base of the callbacks that judge each batch, correct the module and say what serves; place it
    before the records.

    Attributes:
        batch: number of the batch that comes next, or is being judged.
        images: how many images this process had before it.
        alarmed: numbers of the batches that raised an alarm.
        resets: numbers of the batches after which the source was restored.
        step: name of the module's step whose outputs are judged.
    """

    def __init__(self) -> None:
        self.batch = 0
        self.images = 0
        self.alarmed: list[int] = []
        self.resets: list[int] = []
        self.step = STEPS["fit"]

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
