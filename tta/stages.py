"""The four stages of Lightning's Trainer in which a stream may run: what each needs so that a model
learns in it as in ``fit``, and callbacks that act in all of them.
"""

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from holdfast.tta.learning import as_in_fit
from holdfast.tta.step import StepOutputs

#: The step of a LightningModule that a stage calls, by the name that ``setup`` gets of the stage.
STEPS: Mapping[str, str] = {
    "fit": "training_step",
    "validate": "validation_step",
    "test": "test_step",
    "predict": "predict_step",
}


class StreamCallback(Callback):
    """Base of callbacks that act on each batch before it leaves, in whichever of the Trainer's
    stages the stream runs: ``fit``, ``validate``, ``test`` or ``predict``.

    A subclass says what it does in ``on_stream_start``, ``on_served`` and ``on_stream_end``. The
    validation that ``fit`` makes between its batches is no stream.
    """

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first batch, when the module is on its device."""

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
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
            number = batch_idx + int(sum(trainer.num_val_batches[:dataloader_idx]))
            self._evaluated(trainer, pl_module, outputs, batch, number)

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
        number = batch_idx + int(sum(trainer.num_test_batches[:dataloader_idx]))
        self._evaluated(trainer, pl_module, outputs, batch, number)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``test``, or in another stage that is no training."""
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
        number = batch_idx + int(sum(trainer.num_predict_batches[:dataloader_idx]))
        self._evaluated(trainer, pl_module, outputs, batch, number)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end in ``predict``."""
        self.on_test_end(trainer, pl_module)

    def _evaluated(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        """A batch in a stage that is no training; several loaders are one stream."""
        with as_in_fit():
            self.on_served(trainer, pl_module, outputs, batch, number)
