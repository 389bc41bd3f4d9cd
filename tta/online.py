"""How a module serves a batch, predicting it and learning from it, and what guards ask of it; no
Trainer is needed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor

from holdfast.tta.batches import check_computable, images_of
from holdfast.tta.candidates import Candidates
from holdfast.tta.distributed import count_of_all, skipped_by_all, total_of_all
from holdfast.tta.fingerprint import fingerprint, values_now
from holdfast.tta.learning import as_in_fit
from holdfast.tta.marginal import predicted_counts
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.normalization import BatchStatisticsError
from holdfast.tta.repair import largest_pixel, repaired, sound
from holdfast.tta.source_facts import SourceFacts
from holdfast.tta.step import Candidate, Counts, ServedBy, StepOutputs
from holdfast.tta.tasks import Task

#: Share of a batch's most frequent predicted class from which on the batch counts as one of a
#: single class.
_SINGLE = 0.95


class ServesBatches(LightningModule):
    """Base of ``AdaptsAtTestTime``: all of it that knows nothing of the Trainer's stages."""

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
            candidates: the un-updated network under several statistics; by default made where
                there is a ``source``, or statistics that somebody must choose.
        """
        self.automatic_optimization = False
        self.method = method
        if candidates is None and (source is not None or method.chosen_elsewhere):
            candidates = Candidates(method, source.layer_moments if source else None)
        self.twins = candidates
        #: Means and variances (C, D) of the source's classes, for a guard; None: not known.
        self.source_features = None
        if source is not None:
            self.source_features = source.features
        self.batch_size = batch_size or 0
        self.screen = screen
        self.paused = False
        #: Whether outputs tell by which weights they came, as ``weights()``; writers ask for it.
        self.tells_weights = False
        self._weights: Callable[[], str] | None = None
        #: Told what a batch leaves with before anything is learned from it, where learning changes
        #: nothing of that; None: nobody asks.
        self.leaves: Callable[[StepOutputs], None] | None = None
        self.largest = largest_pixel(method.model)
        self._grows = batch_size is None
        self._seen: tuple[Any, Tensor, Tensor | None] | None = None
        self._plain = (method.backward, method.step)
        self.to(next(method.model.parameters()).device)  # whose device a guard asks for

    def images_of(self, batch: Any) -> Tensor:
        """The images (N, channels, ...) of a batch; override it for batches of a form of your
        own.
        """
        return images_of(batch)

    # What guards ask for

    @property
    def task(self) -> Task:
        """What the network's answer means."""
        return self.method.task

    @as_in_fit()
    def control(self, batch: Any) -> Prediction:
        """What the un-updated twin says of the batch."""
        with self._precision():
            return self._control(self._read(batch)[0])

    @as_in_fit()
    def candidates(
        self,
        batch: Any,
        names: Sequence[Candidate] | None = None,
        partly: Collection[Candidate] = (),
    ) -> Mapping[Candidate, Prediction]:
        """What the un-updated network says of the batch under each choice of statistics, or some;
        none without choice.
        """
        if self.twins is None:
            return {}
        with self._precision():
            return self.twins.predict(self._read(batch)[0], names, partly)

    def _precision(self) -> AbstractContextManager[None]:
        """The precision of the Trainer's steps, between which guards ask: what is compared with a
        step's prediction is computed alike.
        """
        if self._trainer is None:
            return nullcontext()
        return self._trainer.precision_plugin.forward_context()

    @as_in_fit()
    def use(self, name: Candidate) -> None:
        """Predict and learn under the statistics of a candidate."""
        assert self.twins is not None, "there is no choice of statistics"
        self.twins.use(name)

    def expect_shares(self, bounds: Tensor | None) -> None:
        """Let statistics heed least and largest true share (2, C) of each class in the stream;
        None: nothing is known.
        """
        if self.twins is not None:
            self.twins.expect_shares(bounds)

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
    def serve(self, batch: Any) -> StepOutputs:
        """What all steps do: predict a batch, then update unless it is unfit for it."""
        if self.method.model.training:  # somebody called train(): statistics have their own choice
            self.method.eval()
        self._seen = self._weights = None
        self.method.begin_batch()  # while updates rest as well: an episode starts from the source
        if self.tells_weights:
            self._weights = partial(fingerprint, values_now(self.method.adapted.values()))
        images = self._arrived(batch)
        if self._grows:
            self.batch_size = max(self.batch_size, count_of_all(len(images), images.device))
        try:
            output = self._step(batch, images)
        except BatchStatisticsError:
            images = self._read(batch)[0]
            output = self._output(
                self.method.source(images), skipped="single_value", served_by="source"
            )
        output["broken"] = self._read(batch)[1]
        return output

    def _step(self, batch: Any, images: Tensor) -> StepOutputs:
        """Predict and learn; all that the host must know of a calm batch it hears at once."""
        method, drawn = self.method, self.method.generator.get_state()
        first = method.predicts_first or self.paused
        prediction = method.predict(images) if first else None
        facts = self._heard(images, prediction)
        well = facts.well
        if well:
            self._seen = (batch, images, None)
        else:  # rarely, and in all processes: once more, without the broken pixels
            images = self._read(batch)[0]
            method.generator.set_state(drawn)  # as if the first had not been
            prediction = method.predict(images)
            facts = self._heard(images, prediction)
        reason = None if well else self._broken(batch)
        if not self.paused:
            reason = self._unfit(images, reason, single=facts.single)
        if self.paused or reason is not None:
            return self._unlearned(prediction or method.predict(images), reason, facts)
        if self.leaves is not None and prediction is not None and method.keeps_prediction:
            self.leaves(self._output(prediction))
        method.finite = facts.finite
        try:
            update = method.update(images, prediction)
        except BatchStatisticsError:  # of images that it picked
            if prediction is None:
                raise
            update = Update(skipped="single_value")
        served = update.prediction or prediction or self.method.predict(images)
        return self._output(
            served,
            loss=update.loss,
            skipped=update.skipped,
            restored=update.restored,
            facts=None if update.prediction else facts,
        )

    def _unlearned(
        self, prediction: Prediction, skipped: str | None, facts: "_Facts"
    ) -> StepOutputs:
        """The output without an update; statistics that move with the stream do so all the same, as
        the control's.
        """
        self.method.keep_moving()
        return self._output(prediction, skipped=skipped, facts=facts)

    def _read(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Images, and which of them were broken; read once a batch, whoever asks, so that they are
        the same tensor.
        """
        if self._seen is None or self._seen[0] is not batch:
            self._seen = (batch, *repaired(self._arrived(batch), self.largest))
        return self._seen[1:]

    def _arrived(self, batch: Any) -> Tensor:
        """The images as they came."""
        images = self.images_of(batch)
        check_computable(images, self.method.model)
        # What was made in inference mode cannot be learned from.
        return images.clone() if images.is_inference() else images

    def _broken(self, batch: Any) -> str:
        """Why a batch with a broken image teaches nothing, which another process may have."""
        return "elsewhere" if self._read(batch)[1] is None else "broken_image"

    def _heard(self, images: Tensor, prediction: Prediction | None) -> "_Facts":
        """What the host must know of the batch of all processes: one read-back, the only one of a
        calm batch.
        """
        served = images if prediction is None else prediction.served.detach()
        faults = [sound(images, self.largest), torch.isfinite(served).all()]
        facts = [torch.stack(faults).logical_not().float()]
        if prediction is not None and self.screens_mix:
            facts.append(predicted_counts(prediction.logits.detach(), self.method.num_classes))
        broken, infinite, *counts = total_of_all(torch.cat(facts)).tolist()
        return _Facts(not broken, not infinite, tuple(counts))

    def _control(self, images: Tensor) -> Prediction:
        try:
            return self.method.control(images)
        except BatchStatisticsError:
            return self.method.source(images)

    @property
    def screens_mix(self) -> bool:
        """Whether short batches, and those of hardly more than one class, teach nothing; where each
        image has many rows, one image is a batch.
        """
        method = self.method
        learns = method.predicts_first and not method.static
        mixed = method.task.screens_mix and method.needs_mixed_batch
        return self.screen and learns and mixed

    def _unfit(self, images: Tensor, reason: str | None, *, single: bool) -> str | None:
        """Why a batch, of all processes, is no ground to learn from, or None."""
        if reason is None and self.screens_mix:
            if count_of_all(len(images), images.device) < self.batch_size:
                reason = "short_batch"
            # Only where the un-updated twin agrees: otherwise it is no such batch but a collapse.
            elif single and self._is_single(self._control(images)):
                reason = "single_class"
        return skipped_by_all(reason, images.device)

    def _is_single(self, prediction: Prediction) -> bool:
        counts = predicted_counts(prediction.logits, self.method.num_classes)
        return _single_class(total_of_all(counts).tolist())

    def _output(
        self,
        prediction: Prediction,
        *,
        loss: Tensor | None = None,
        skipped: str | None = None,
        restored: bool = False,
        served_by: ServedBy | None = None,
        facts: "_Facts | None" = None,
    ) -> StepOutputs:
        if served_by is None and self.method.static:
            served_by = "source" if self.method.normalization == "source" else "control"
        said = prediction.detach()
        output: StepOutputs = {
            "logits": said.served,
            "features": said.features,
            "skipped": skipped,
            "restored": restored,
            "served_by": served_by or "adapted",
        }
        if said.output is not None:
            output["rows"] = said
        if facts is not None and facts.counts:
            logits, broken = said.served, float(not facts.finite)
            output["counts"] = Counts(logits, logits._version, broken, facts.counts)
        if self._weights is not None:
            output["weights"] = self._weights
        if loss is not None:  # Lightning takes no loss of None
            output["loss"] = loss
        return output


class _Facts(NamedTuple):
    """What the host knows of a batch of all processes.

    Attributes:
        well: whether all pixels are sound.
        finite: whether all that is served is.
        counts: (C,) rows by predicted class; empty: nobody asks.
    """

    well: bool
    finite: bool
    counts: tuple[float, ...]

    @property
    def single(self) -> bool:
        """Whether hardly any row is predicted as another than the most frequent class."""
        return _single_class(self.counts)


def _single_class(counts: Sequence[float]) -> bool:
    """Whether hardly any row is predicted as another than the most frequent class.

    Args:
        counts: (C,) rows by class; empty: nobody asks.
    """
    return bool(counts) and max(counts) >= _SINGLE * sum(counts) > 0
