"""The un-updated network under several normalisation statistics: what could serve a batch in place
of the adapted one.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdfast.tta.correction import LabelCorrection
from holdfast.tta.distributed import count_of_all, every, every_of
from holdfast.tta.methods.base import Method, Prediction
from holdfast.tta.normalization import (
    BatchStatisticsError,
    Statistics,
    seen_moments,
    statistics,
    uncounted,
)
from holdfast.tta.step import Candidate

#: Batches at the start in which corrected statistics take the batch in before they predict it.
WARM_UP = 3
#: Images of a batch that are enough for evidence.
_SAMPLE = 16
#: Dimensions of signals (N, channels, length).
_SIGNALS = 3


class _Opinion(NamedTuple):
    """What the source says of a part of a batch.

    Attributes:
        probabilities: (n, C) of this process's images.
        stride: it was asked about every so many-th of all.
        local: images of this process.
        total: of all processes.
    """

    probabilities: Tensor
    stride: int
    local: int
    total: int

    def mixed_with(self, own: Tensor, stride: int) -> Tensor:
        """Rows (m, C) whose mean is the mix of classes that a candidate and the source find, on
        average. The candidate's alone would prove itself: it explains a shift away by the class
        that it then finds.

        Where the source was asked about fewer images, each of these counts for so much more. Where
        it has no numbers, it has no say.

        Args:
            own: (m, C) probabilities of the candidate.
            stride: it was asked about every so many-th image.
        """
        both = math.lcm(stride, self.stride)
        mine, theirs = (
            every_of(each, both, self.local, own.device) for each in (stride, self.stride)
        )
        said = self.probabilities[theirs]
        said = torch.where(said.isnan(), own[mine], said)
        mix = own / 2
        mix[mine] = mix[mine].add(said, alpha=self.asked(stride) / self.asked(both) / 2)
        return mix

    def asked(self, stride: int) -> int:
        """How many images of the batch a model is asked about, if about every so many-th."""
        return -(-self.total // stride)


class Candidates(nn.Module):
    """Predicts with the source's weights under each choice of statistics, and lets the adapting
    method use one of them.

    For a method with ``normalization="auto"`` they are ``source``, ``batch`` and ``corrected``
    (``LabelCorrection``); without class-conditional moments there is nothing to correct by, nor
    where rows are no images, and the first two are left. A method whose statistics are fixed has
    ``source`` and its own ``control``; where they are one, or the network has no BatchNorm, there
    is no choice.

    Args:
        method: it works under the statistics that ``use`` names, where they are not fixed.
        moments: by layer, what each class of the source looks like there
            (``class_conditional_moments``).
    """

    def __init__(self, method: Method, moments: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        # Not a submodule: the method's state is its owner's to save.
        self._method = [method]
        layers = [layer for layer in method.layers.values() if layer.running_mean is not None]
        self._own: Statistics = layers[0].statistics if layers else "source"
        self.correction: LabelCorrection | None = None
        if moments and layers and method.chosen_elsewhere and method.task.by_image:
            self.correction = LabelCorrection(method.model, moments)
        own: tuple[Candidate, ...] = ("control",)
        if method.chosen_elsewhere:
            own = ("batch", "corrected") if self.correction else ("batch",)
        one = not layers or (self._own == "source" and not method.chosen_elsewhere)
        self.names: tuple[Candidate, ...] = ("source",) if one else ("source", *own)
        self.batches = self.doubts = 0
        self.current: Candidate = "control" if "control" in self.names else "source"
        if method.chosen_elsewhere and layers:
            self.use("batch")  # as published, until somebody chooses

    @property
    def method(self) -> Method:
        """The method whose un-updated twins these are."""
        return self._method[0]

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        names: Sequence[Candidate] | None = None,
        partly: Collection[Candidate] = (),
    ) -> dict[Candidate, Prediction]:
        """What each candidate says of a batch; corrected statistics take it in.

        Args:
            images: (N, channels, ...).
            names: candidates to ask; all by default.
            partly: those that are asked about 16 images or some more, spread over the batch of all
                processes, which is evidence enough at a fraction of the cost. The one in use, and
                batch statistics, which depend on the batch, are asked about all.

        Returns:
            Predictions by name, without candidates that cannot predict the batch: one value per
            channel has no statistics.
        """
        result: dict[Candidate, Prediction] = {}
        count = count_of_all(len(images), images.device)
        few = max(1, count // _SAMPLE)
        in_part = {"source", "corrected"}.intersection(partly) - {self.current}
        # Corrected statistics come last, since the source has its say in them.
        asked = sorted(self.names if names is None else names, key="corrected".__eq__)
        strides = {name: few if name in in_part else 1 for name in asked}
        doubts = names is None and self.method.task.dense
        for name, stride in strides.items():
            try:
                if name == "corrected":
                    known = result.get("source")
                    opinion = self._opinion(images, strides.get("source", few), count, known)
                    result[name] = self._corrected(images, stride, opinion)
                else:
                    ask = partial(self._uncorrected, name, doubts=doubts)
                    result[name] = _said(images, stride, ask)
            except BatchStatisticsError:
                continue
        self.batches += 1
        self.doubts += names is None
        self.use(self.current)  # whose statistics may have moved
        return result

    def use(self, name: Candidate) -> None:
        """Let the method predict and learn under the statistics of a candidate."""
        if name == "control" != self.current:
            self.method.follow_control()
        self.current = name
        values = self.correction.statistics() if self.correction and name == "corrected" else {}
        self.method.use_statistics(self._kind(name), values)

    def expect_shares(self, bounds: Tensor | None) -> None:
        """Let corrected statistics heed least and largest true share (2, C) of each class; None:
        nothing is known.
        """
        if self.correction is not None:
            self.correction.expect_shares(bounds)
            self.use(self.current)

    def get_extra_state(self) -> dict[str, Any]:
        """The candidate in use, how many batches were predicted, and how often all were asked."""
        return {"current": self.current, "batches": self.batches, "doubts": self.doubts}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        self.current, self.batches = state["current"], state["batches"]
        self.doubts = state.get("doubts", 0)

    def _uncorrected(
        self, name: Candidate, images: Tensor, numbers: Tensor, *, doubts: bool
    ) -> Prediction:
        said = self._answer(name, images)
        return self._doubted(name, images, numbers, said) if doubts else said

    def _answer(self, name: Candidate, images: Tensor) -> Prediction:
        if name == self.current and (self.method.chosen_elsewhere or name == "control"):
            return self.method.control(
                images
            )  # once a batch, whoever asks: statistics of its own would take it in twice
        with statistics(self.method.model, self._kind(name)):
            return (
                self.method.run_control(images)
                if name == "control"
                else self.method.run_source(images)
            )

    def _doubted(
        self, name: Candidate, images: Tensor, numbers: Tensor, said: Prediction
    ) -> Prediction:
        """A prediction, with how little it agrees with that of the flipped images.

        Every other image is flipped along its last side, the rest along the one before, and of
        single images each in turn: anatomy may differ there, but for all candidates alike. Signals
        have one side.
        """
        task, kind = self.method.task, self._kind(name)
        # Statistics that move have taken the images in already.
        with statistics(self.method.model, "moving" if kind == "robust" else kind):
            turned = self.method.run_source(self._flipped(images, numbers)).served
        flipped = self._flipped(turned, numbers)
        p, q = (task.probabilities(output.float()) for output in (said.served, flipped))
        return said._replace(doubt=task.doubt(p, q))

    def _flipped(self, maps: Tensor, numbers: Tensor) -> Tensor:
        """Images or answers (N, channels, *spatial), flipped for this look; twice changes
        nothing.
        """
        last = (numbers % 2 == self.doubts % 2).view(-1, *(1,) * (maps.dim() - 1))
        before = -2 if maps.dim() > _SIGNALS else -1
        return torch.where(last, maps.flip(-1), maps.flip(before))

    def _opinion(
        self, images: Tensor, stride: int, count: int, said: Prediction | None
    ) -> _Opinion:
        """What the source says of every so many-th image; it is asked where it has not been."""
        assert self.correction is not None
        if said is None:
            with statistics(self.method.model, "source"):
                said = _said(images, stride, lambda part, _: self.method.run_source(part))
        return _Opinion(self.correction.probabilities(said.logits), stride, len(images), count)

    def _corrected(self, images: Tensor, stride: int, source: _Opinion) -> Prediction:
        """Predict under the statistics as they stand, then let them take the batch in; the other
        way round at the start, unless the adapting model works under them: it predicted the batch
        with those that stood, and is held against this prediction.

        Args:
            images: (N, channels, ...).
            stride: every so many-th of the batch's is looked at.
            source: what the source says of the batch.
        """
        assert self.correction is not None
        looked_at = source.asked(stride)
        kind: Statistics = "batch" if self.batches == 0 and looked_at > 1 else "moving"
        values = self.correction.statistics()
        if self.batches < WARM_UP and self.current != "corrected":
            # Every other image tells a layer's moments about as well as all do.
            fewer = 2 * stride if looked_at >= _SAMPLE else stride
            _, state = self._seen(images, fewer, kind, values, source)
            kind, values = "moving", self.correction.statistics(state)
        prediction, state = self._seen(images, stride, kind, values, source)
        self.correction.keep(state)
        return prediction

    def _seen(
        self,
        images: Tensor,
        stride: int,
        kind: Statistics,
        values: Mapping[str, Tensor],
        source: _Opinion,
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """A prediction, and what the correction becomes with what its layers saw."""
        assert self.correction is not None
        with statistics(self.method.model, kind), seen_moments(self.method.model) as seen:
            prediction = _said(
                *(images, stride), lambda part, _: self.method.run_source(part, values)
            )
        moments = {layer: inputs[0] for layer, inputs in seen.items() if inputs}
        own = self.correction.probabilities(prediction.logits)
        return prediction, self.correction.after(moments, source.mixed_with(own, stride))

    def _kind(self, name: Candidate) -> Statistics:
        if name == "control":
            return self._own
        return "source" if name == "source" else "batch" if name == "batch" else "moving"


def _said(images: Tensor, stride: int, ask: Callable[[Tensor, Tensor], Prediction]) -> Prediction:
    """What is said of every so many-th image of the batch. A process that has none of these asks
    about another, since no network need take a batch of none, and says nothing.

    Args:
        images: (N, channels, ...) of this process.
        stride: 1: all.
        ask: a model about images, and their numbers among those of all processes.
    """
    part, numbers = every(images, stride)
    if len(part):
        return ask(part, numbers)
    nothing = torch.zeros(1, dtype=torch.long, device=images.device)
    with uncounted():
        return ask(images[:1], nothing).of_images(nothing > 0)
