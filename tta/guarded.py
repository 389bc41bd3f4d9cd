"""What makes a LightningModule adapt at test time, in every stage of the Trainer, so that a guard
can watch it, correct it and choose its statistics.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.trainer.states import TrainerFn

from holdfast.tta.batches import described, truth_of
from holdfast.tta.distributed import place
from holdfast.tta.errors import InputError
from holdfast.tta.learning import as_in_fit
from holdfast.tta.methods.base import Method
from holdfast.tta.online import ServesBatches
from holdfast.tta.step import StepOutputs
from holdfast.tta.tasks import Scorer
from holdfast.tta.trainers import check_own

#: What a step leaves for callbacks, and what nobody needs who gets predictions.
_INNER = ("counts", "features", "loss", "rows", "weights")


class AdaptsAtTestTime(ServesBatches):
    """Mixin: each batch of a stream is predicted with the weights as they are, then learned from.

    Derive from it and from a LightningModule of your own, and call ``adapt_by`` at the end of
    ``__init__``. The stream may run in ``Trainer.fit`` (one epoch), ``validate``, ``test`` or
    ``predict``, with the same predictions; these steps are the mixin's, everything else stays your
    own. Each step returns a dictionary that callbacks read and may change; ``StepOutputs`` says
    what is in it. What leaves is settled when callbacks have run: your own metrics belong into the
    module's ``on_test_batch_end(outputs, batch, batch_idx)``. ``predict`` returns these, with
    ``id`` and ``probabilities`` (N, C), and without features.

    ``test`` and ``validate`` log ``accuracy`` and ``balanced_accuracy`` in percent, as
    ``test/accuracy``, where batches have labels; of masks ``dice``, of findings ``auroc``.

    Example:
        ::

            class Adapting(AdaptsAtTestTime, YourModule):
                def __init__(self, trained: YourModule) -> None:
                    super().__init__()
                    network = trained.network
                    self.adapt_by(create_method("tent", network, num_classes=3, lr=1e-3))


            guard = CollapseGuard(("benign", "malignant", "neither"))
            Trainer(callbacks=[guard]).predict(Adapting(trained), loader)
    """

    #: Images that left in this stage, and how many of them were right where there are labels.
    _served = 0
    _tally: Scorer | None = None

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """None of its own; here since it comes first: refuse what the Trainer cannot do."""
        if getattr(self, "method", None) is None:
            raise InputError(
                f"{type(self).__name__} has no method yet: call self.adapt_by(create_method(...)) "
                "at the end of its __init__"
            )
        check_own(self.trainer)
        return super().configure_callbacks()

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """The method's own optimiser."""
        return self.method.optimizer

    def on_fit_start(self) -> None:
        """Let gradients and steps go through Lightning, for its precision and DDP plugins."""
        super().on_fit_start()
        self._check_place()
        if self.method.optimizer is not None:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            self._begin(optimizer.step)
        else:
            self._begin(self.method.step)

    def on_validation_start(self) -> None:
        """The same for a stream in ``validate``."""
        super().on_validation_start()
        self._begin_evaluation()

    def on_test_start(self) -> None:
        """The same for a stream in ``test``."""
        super().on_test_start()
        self._begin_evaluation()

    def on_predict_start(self) -> None:
        """The same for a stream in ``predict``."""
        super().on_predict_start()
        self._begin_evaluation()

    def training_step(self, batch: Any, batch_idx: int) -> StepOutputs:
        """Predict, then update unless the batch is unfit for it."""
        return self.serve(batch)

    @property
    def validation_step(self) -> Any:
        """The same in ``validate``; within ``fit`` there is none, for the stream is validated by
        nothing.
        """
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return None if fitting else self.test_step

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> StepOutputs:
        """Predict, then update unless the batch is unfit for it."""
        return self.serve(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> StepOutputs:
        """Predict, then update unless the batch is unfit for it."""
        return self.serve(batch)

    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, *loader: int
    ) -> None:
        """Count what was right of what left."""
        super().on_validation_batch_end(outputs, batch, batch_idx, *loader)
        self._count(outputs, batch)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *loader: int) -> None:
        """Count what was right of what left."""
        super().on_test_batch_end(outputs, batch, batch_idx, *loader)
        self._count(outputs, batch)

    def on_validation_epoch_end(self) -> None:
        """Log how much was right."""
        super().on_validation_epoch_end()
        self._log_tally("validate")

    def on_test_epoch_end(self) -> None:
        """Log how much was right."""
        super().on_test_epoch_end()
        self._log_tally("test")

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *loader: int) -> None:
        """Turn what callbacks left into what ``predict`` returns."""
        super().on_predict_batch_end(outputs, batch, batch_idx, *loader)
        if not isinstance(outputs, dict) or "logits" not in outputs:  # of a step of one's own
            return
        outputs["id"] = described(batch, len(outputs["logits"]), self._served).ids
        outputs["probabilities"] = self.method.task.probabilities(outputs["logits"].float())
        for name in _INNER:
            outputs.pop(name, None)
        self._served += len(outputs["logits"])

    def teardown(self, stage: str) -> None:
        """Take gradients and steps back from Lightning: the method goes on without it."""
        super().teardown(stage)
        self.method.backward, self.method.step = self._plain
        self._seen = None

    # How a stage begins, and what it counts

    def _check_place(self) -> None:
        """Refuse a method that cannot work where it is.

        Raises:
            InputError: weights are of 16 bits, or several processes share what one must do.
        """
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.method.adapted.values()):
            raise InputError(
                "weights of 16 bits lose the small steps of adaptation: use "
                "trainer.precision=bf16-mixed, or 32-true"
            )
        if place()[1] > 1 and (
            type(self.method).learn is not Method.learn or self.method.optimizer is None
        ):
            raise InputError(
                f"{type(self.method).__name__} works in one process only: use trainer.devices=1, "
                "or a method that takes plain "
                "gradient steps (tent, dsbr, eata, ...)"
            )

    def _begin(self, step: Any) -> None:
        """Take up the statistics in use, which are no tensor, and count from the start."""
        if self.method.optimizer is not None:
            self.method.backward, self.method.step = self.manual_backward, step
        if self.twins is not None and self.twins.batches:
            self.twins.use(self.twins.current)
        self._served, self._tally = 0, None

    def _begin_evaluation(self) -> None:
        """Begin where Lightning has no optimisers; steps go through its precision all the same."""
        if self.trainer.state.fn == TrainerFn.FITTING:  # validation of somebody else's
            return
        with as_in_fit():
            self._check_place()
            step, optimizer = self.method.step, self.method.optimizer
            if optimizer is not None:
                strategy = self.trainer.strategy
                step = partial(strategy.optimizer_step, optimizer, _no_closure, self)
            self._begin(step)

    def _count(self, outputs: Any, batch: Any) -> None:
        """Take in what was right of a batch."""
        own = not isinstance(outputs, dict) or "logits" not in outputs
        if own or self.trainer.state.fn == TrainerFn.FITTING:
            return
        with as_in_fit():
            task, logits = self.method.task, outputs["logits"]
            self._tally = self._tally or task.scorer()
            truth = truth_of(batch, task.target, len(logits))
            if truth is not None:
                self._tally.add(logits, truth.to(logits.device))

    def _log_tally(self, stage: str) -> None:
        if self._tally is not None:
            scores = self._tally.scores()
            self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})


def _no_closure() -> None:
    """Gradients are there already."""
