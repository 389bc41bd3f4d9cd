"""The LightningModule that carries one adaptation method through a stream."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from holdfast.tta.candidates import Candidates
from holdfast.tta.distributed import any_of_all, place, skipped_by_all
from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method, Prediction
from holdfast.tta.normalization import BatchStatisticsError
from holdfast.tta.repair import largest_pixel, repaired

#: Share of a batch's most frequent predicted class from which on the batch counts as one of a
#: single class.
_SINGLE = 0.95


class AdaptationModule(LightningModule):
    """One online pass: predict each batch with the weights as they are, then update.

    Use it in ``Trainer.fit`` for one epoch. Each step returns a dictionary that callbacks read and
    may change: ``logits`` (N, C) and ``features`` (N, D) of the prediction that counts, ``loss``
    where there was an update, ``skipped`` (why there was none, or None), ``broken`` (indices of
    images that were broken and repaired, or None), ``restored`` (the method took itself back to the
    source) and ``served_by``.

    Args:
        method: from ``create_method``.
        batch_size: nominal size of a batch; smaller ones are short.
        screen: skip the update on batches that teach the wrong thing (short ones, and those of
            hardly more than one class).
        candidates: the un-updated network under several statistics, for a method whose
            normalisation is chosen as it goes.
    """

    def __init__(
        self,
        method: Method,
        batch_size: int,
        screen: bool = True,
        candidates: Candidates | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.twins = candidates
        self.batch_size = batch_size
        self.screen = screen
        self.paused = False
        self.largest = largest_pixel(method.model)
        self._looked_at: tuple[Tensor, tuple[Tensor, Tensor | None]] | None = None

    def on_fit_start(self) -> None:
        """Let gradients and steps go through Lightning, for its precision and DDP plugins; take up
        the statistics in use.
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
        if self.method.optimizer is not None:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            self.method.backward = self.manual_backward
            self.method.step = optimizer.step
        if self.twins is not None and self.twins.batches:
            self.twins.use(
                self.twins.current
            )  # in a run that goes on, for the choice of statistics is no tensor

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """The method's own optimiser."""
        return self.method.optimizer

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Predict, then update unless the batch is unfit for it."""
        images, broken = self._repaired(batch)
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

    def control(self, batch: Mapping[str, Any]) -> Prediction:
        """What the un-updated twin says of the batch."""
        images, _ = self._repaired(batch)
        return self._control(images)

    def candidates(
        self,
        batch: Mapping[str, Any],
        names: Sequence[str] | None = None,
        partly: Collection[str] = (),
    ) -> Mapping[str, Prediction]:
        """What the un-updated network says of the batch under each choice of statistics, or some;
        none without choice.
        """
        if self.twins is None:
            return {}
        images, _ = self._repaired(batch)
        return self.twins.predict(images, names, partly)

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

    def reset(self) -> None:
        """Back to the source, bit for bit; the choice of statistics stays."""
        self.method.reset()

    def restore(self, fraction: float) -> None:
        """Move the adapted weights by ``fraction`` of their distance to the source's."""
        self.method.restore(fraction)

    def restore_elements(self, share: float) -> None:
        """The source's value in each element of the adapted weights that a coin of this probability
        picks.
        """
        self.method.restore_elements(share)

    def restore_last(self, share: float) -> None:
        """The source's values in the last share of the adapted tensors; moments and running state
        start afresh.
        """
        self.method.restore_last(share)

    def reweight(self, prior: Tensor) -> bool:
        """Let the objective aim at these class shares (C,); False where it has no such aim."""
        return self.method.reweight(prior)

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate, until the next reset."""
        self.method.scale_lr(factor)

    def pause(self, paused: bool = True) -> None:
        """Stop updating, or go on."""
        self.paused = paused

    def _repaired(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """A batch's images, searched for broken pixels once whoever asks: a search reads back."""
        images = batch["image"]
        if self._looked_at is None or self._looked_at[0] is not images:
            self._looked_at = images, repaired(images, self.largest)
        return self._looked_at[1]

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


def _single_class(logits: Tensor) -> bool:
    """Whether hardly any row is predicted as another than the most frequent class."""
    labels = logits.argmax(1)
    return bool((labels == labels.mode().values).float().mean() >= _SINGLE)
