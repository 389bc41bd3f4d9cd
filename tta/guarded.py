"""What makes a LightningModule adapt at test time, in every stage of the Trainer, so that a guard
can watch it, correct it and choose its statistics.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from holdfast.tta.batches import described, images_of
from holdfast.tta.candidates import Candidates
from holdfast.tta.distributed import any_of_all, place, skipped_by_all
from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction
from holdfast.tta.metrics import Tally
from holdfast.tta.normalization import BatchStatisticsError
from holdfast.tta.repair import largest_pixel, repaired
from holdfast.tta.source_facts import SourceFacts
from holdfast.tta.stages import as_in_fit
from holdfast.tta.trainers import check_own

#: Share of a batch's most frequent predicted class from which on the batch counts as one of a
#: single class.
_SINGLE = 0.95
#: What a step leaves for callbacks, and what nobody needs who gets predictions.
_INNER = ("features", "loss")


class AdaptsAtTestTime(LightningModule):
    """Mixin: each batch of a stream is predicted with the weights as they are, then learned from.

    Derive from it and from a LightningModule of your own, and call ``adapt_by`` at the end of
    ``__init__``. The stream may run in ``Trainer.fit`` (one epoch), ``validate``, ``test`` or
    ``predict``, with the same predictions; these steps are the mixin's, everything else stays your
    own. Each step returns a dictionary that callbacks read and may change: ``logits`` (N, C) and
    ``features`` (N, D) of the prediction that counts, ``loss`` where there was an update,
    ``skipped`` (why there was none, or None), ``broken`` (indices of images that were broken and
    repaired, or None), ``restored`` (the method took itself back to the source) and ``served_by``.
    What leaves is settled when callbacks have run: your own metrics belong into the module's
    ``on_test_batch_end(outputs, batch, batch_idx)``. ``predict`` returns these dictionaries, with
    ``id`` and ``probabilities`` (N, C), and without features.

    ``test`` and ``validate`` log ``accuracy`` and ``balanced_accuracy`` in percent, as
    ``test/accuracy``, where batches have labels.

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

    method: Method
    twins: Candidates | None

    def adapt_by(
        self,
        method: Method,
        batch_size: int | None = None,
        *,
        screen: bool = True,
        source: SourceFacts | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        """Say what adapts; once, at the end of ``__init__``.

        Args:
            method: from ``create_method``, or a ``Method`` of your own.
            batch_size: nominal size of a batch; smaller ones are short. None: the largest so far.
            screen: skip the update on batches that teach the wrong thing (short ones, and those of
                hardly more than one class).
            source: what ``source_facts`` found of the source; then a guard knows what its classes
                look like, and chooses the statistics of a method with ``normalization="auto"``.
            candidates: the un-updated network under several statistics; of ``source`` by default.
        """
        self.automatic_optimization = False
        self.method = method
        if candidates is None and source is not None:
            candidates = Candidates(method, source.layer_moments)
        self.twins = candidates
        #: Means and variances (C, D) of the source's classes, for a guard; None: not known.
        self.source_features = None if source is None else (source.feature_mean, source.feature_var)
        self.batch_size = batch_size or 0
        self.screen = screen
        self.paused = False
        self.largest = largest_pixel(method.model)
        self._grows = batch_size is None
        self._served = 0
        self._tally: Tally | None = None
        self._seen: tuple[Any, Tensor, Tensor | None] | None = None
        self._plain = (method.backward, method.step)
        self.to(next(method.model.parameters()).device)  # whose device a guard asks for

    def images_of(self, batch: Any) -> Tensor:
        """The images (N, channels, ...) of a batch; override it for batches of a form of your
        own.
        """
        return images_of(batch)

    # What the Trainer calls

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

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Predict, then update unless the batch is unfit for it."""
        return self.serve(batch)

    @property
    def validation_step(self) -> Any:
        """The same in ``validate``; within ``fit`` there is none, for the stream is validated by
        nothing.
        """
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return None if fitting else self.test_step

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predict, then update unless the batch is unfit for it."""
        return self.serve(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
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
        outputs["probabilities"] = outputs["logits"].float().softmax(1)
        for name in _INNER:
            outputs.pop(name, None)
        self._served += len(outputs["logits"])

    def teardown(self, stage: str) -> None:
        """Take gradients and steps back from Lightning: the method goes on without it."""
        super().teardown(stage)
        self.method.backward, self.method.step = self._plain
        self._seen = None

    # What guards ask for

    @as_in_fit()
    def control(self, batch: Any) -> Prediction:
        """What the un-updated twin says of the batch."""
        return self._control(self._read(batch)[0])

    @as_in_fit()
    def candidates(
        self, batch: Any, names: Sequence[str] | None = None, partly: Collection[str] = ()
    ) -> Mapping[str, Prediction]:
        """What the un-updated network says of the batch under each choice of statistics, or some;
        none without choice.
        """
        if self.twins is None:
            return {}
        return self.twins.predict(self._read(batch)[0], names, partly)

    @as_in_fit()
    def use(self, name: str) -> None:
        """Predict and learn under the statistics of a candidate."""
        assert self.twins is not None, "there is no choice of statistics"
        self.twins.use(name)

    @property
    def has_learned(self) -> bool:
        """Whether anything was learned since the source, which a reset would undo."""
        return self.method.has_learned

    @property
    def control_moves(self) -> bool:
        """Whether the control must see every batch, since its normalisation statistics move with
        the stream.
        """
        return self.method.control_moves

    @as_in_fit()
    def reset(self) -> None:
        """Back to the source, bit for bit; the choice of statistics stays."""
        self.method.reset()

    @as_in_fit()
    def restore(self, fraction: float) -> None:
        """Move the adapted weights by ``fraction`` of their distance to the source's."""
        self.method.restore(fraction)

    @as_in_fit()
    def restore_elements(self, share: float) -> None:
        """The source's value in each element of the adapted weights that a coin of this probability
        picks.
        """
        self.method.restore_elements(share)

    @as_in_fit()
    def restore_last(self, share: float) -> None:
        """The source's values in the last share of the adapted tensors; moments and running state
        start afresh.
        """
        self.method.restore_last(share)

    @as_in_fit()
    def reweight(self, prior: Tensor) -> bool:
        """Let the objective aim at these class shares (C,); False where it has no such aim."""
        return self.method.reweight(prior)

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate, until the next reset."""
        self.method.scale_lr(factor)

    def pause(self, paused: bool = True) -> None:
        """Stop updating, or go on."""
        self.paused = paused

    # How a batch is served

    @as_in_fit()
    def serve(self, batch: Any) -> dict[str, Any]:
        """What all steps do: predict a batch, then update unless it is unfit for it."""
        if self.method.model.training:  # somebody called train(): statistics have their own choice
            self.method.eval()
        self._seen = None
        images, broken = self._read(batch)
        if self._grows:
            self.batch_size = max(self.batch_size, len(images) * place()[1])
        try:
            output = self._step(images, broken is not None)
        except BatchStatisticsError:
            output = self._output(
                self.method.source(images), skipped="single_value", served_by="source"
            )
        output["broken"] = broken
        return output

    def _step(self, images: Tensor, broken: bool) -> dict[str, Any]:
        self.method.begin_batch()  # while updates rest as well: an episode starts from the source
        if self.paused:
            return self._unlearned(self.method.predict(images), "broken_image" if broken else None)
        first = self.method.predicts_first
        prediction = self.method.predict(images) if first or broken else None
        reason = self._unfit(images, prediction, broken)
        if reason is not None:
            return self._unlearned(prediction or self.method.predict(images), reason)
        update = self.method.update(images, prediction)
        served = update.prediction or prediction or self.method.predict(images)
        return self._output(
            served, loss=update.loss, skipped=update.skipped, restored=update.restored
        )

    def _unlearned(self, prediction: Prediction, skipped: str | None) -> dict[str, Any]:
        """The output without an update; statistics that move with the stream do so all the same, as
        the control's.
        """
        self.method.keep_moving()
        return self._output(prediction, skipped=skipped)

    def _read(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Images, and which of them were broken; read once a batch, whoever asks, so that they are
        the same tensor.
        """
        if self._seen is None or self._seen[0] is not batch:
            images = self.images_of(batch)
            # What was made in inference mode cannot be learned from.
            images = images.clone() if images.is_inference() else images
            self._seen = (batch, *repaired(images, self.largest))
        return self._seen[1:]

    def _control(self, images: Tensor) -> Prediction:
        try:
            return self.method.control(images)
        except BatchStatisticsError:
            return self.method.source(images)

    @property
    def screens_mix(self) -> bool:
        """Whether short batches, and those of hardly more than one class, teach nothing."""
        method = self.method
        learns = method.predicts_first and not method.static
        return self.screen and learns and method.needs_mixed_batch

    def _unfit(self, images: Tensor, prediction: Prediction | None, broken: bool) -> str | None:
        """Why a batch, of all processes, is no ground to learn from, or None."""
        reason = "broken_image" if broken else None
        if self.screens_mix:
            assert prediction is not None
            if reason is None and len(images) < self.batch_size // place()[1]:
                reason = "short_batch"
            single = reason is None and _single_class(prediction.logits)
            # Only where the un-updated twin agrees: otherwise it is no such batch but a collapse.
            # All ask it, or none.
            if (
                any_of_all(single, images.device)
                and _single_class(self._control(images).logits)
                and single
            ):
                reason = "single_class"
        return skipped_by_all(reason, images.device)

    def _output(
        self,
        prediction: Prediction,
        *,
        loss: Tensor | None = None,
        skipped: str | None = None,
        restored: bool = False,
        served_by: str | None = None,
    ) -> dict[str, Any]:
        if served_by is None and self.method.static:
            served_by = "source" if self.method.normalization == "source" else "control"
        output = {
            "logits": prediction.logits.detach(),
            "features": prediction.features.detach(),
            "skipped": skipped,
            "restored": restored,
            "served_by": served_by or "adapted",
        }
        return (
            output if loss is None else {**output, "loss": loss}
        )  # Lightning takes no loss of None

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
            self._tally = self._tally or Tally(outputs["logits"].shape[1])
            self._tally.add(outputs["logits"], described(batch, len(outputs["logits"])).labels)

    def _log_tally(self, stage: str) -> None:
        if self._tally is not None:
            scores = self._tally.scores()
            self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})


def _no_closure() -> None:
    """Gradients are there already."""


def _single_class(logits: Tensor) -> bool:
    """Whether hardly any row is predicted as another than the most frequent class."""
    labels = logits.argmax(1)
    return bool((labels == labels.mode().values).float().mean() >= _SINGLE)
