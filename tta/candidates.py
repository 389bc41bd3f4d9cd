"""The un-updated network under several normalisation statistics: what could serve a batch in place of the adapted one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tta.correction import LabelCorrection
from tta.methods.base import Method, Prediction
from tta.normalization import BatchStatisticsError, Statistics, named_adjustable_layers, seen_moments, statistics

#: Running averages of the stream's statistics, the mix of classes explained away, and how far the predicted mix is drawn to
#: equal shares before (``LabelCorrection``). ``anchored`` believes it wholly, and starts at the source instead of at the first
#: batch.
_SHRINKAGE = {"corrected": 1 / 3, "anchored": 0.0}
#: Batches at the start in which corrected statistics take the batch in before they predict it.
_WARM_UP = 4


class Candidates(nn.Module):
    """Predicts with the source's weights under each choice of statistics, and lets the adapting method use one of them.

    They are ``source``, ``batch``, ``corrected`` and ``anchored`` for a method with ``normalization="auto"``; without
    class-conditional moments there is nothing to correct by, and the first two are left. A method whose statistics are fixed
    has ``source`` and its own ``control``; where they are one, or the network has no BatchNorm, there is no choice.

    Args:
        method: it works under the statistics that ``use`` names, where they are not fixed.
        moments: by layer, what each class of the source looks like there (``class_conditional_moments``).
    """

    def __init__(self, method: Method, moments: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        # Not a submodule: the method's state is its owner's to save.
        self._method = [method]
        layers = [layer for layer in named_adjustable_layers(method.model).values() if layer.running_mean is not None]
        corrected = tuple(_SHRINKAGE) if moments and layers and method.chosen_elsewhere else ()
        self._own: Statistics = layers[0].statistics if layers else "source"
        own = ("batch", *corrected) if method.chosen_elsewhere else ("control",)
        one = not layers or (self._own == "source" and not method.chosen_elsewhere)
        self.names: tuple[str, ...] = ("source",) if one else ("source", *own)
        self.corrections = nn.ModuleDict(
            {name: LabelCorrection(method.model, moments or {}, _SHRINKAGE[name]) for name in self.names if name in corrected}
        )
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.batches: Tensor
        self.current = "source"
        self._asked: tuple[Tensor, dict[str, Prediction]] | None = None

    @property
    def method(self) -> Method:
        """The method whose un-updated twins these are."""
        return self._method[0]

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Prediction]:
        """What each candidate says of a batch; corrected statistics take it in.

        Asked twice about the same tensor, it answers from memory. Candidates that cannot predict the batch (one value per
        channel has no statistics of its own) are left out.
        """
        if self._asked is None or self._asked[0] is not images:
            self._asked = images, self._predict(images)
            self.use(self.current)  # whose statistics may have moved
        return self._asked[1]

    def use(self, name: str) -> None:
        """Let the method predict and learn under the statistics of a candidate."""
        self.current = name
        values = self.corrections[name].statistics(self.method.model) if name in self.corrections else {}  # type: ignore[operator]
        self.method.use_statistics(self._kind(name), values)

    def get_extra_state(self) -> dict[str, Any]:
        """The candidate in use."""
        return {"current": self.current}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` gave."""
        self.current = state["current"]
        self._asked = None

    def _predict(self, images: Tensor) -> dict[str, Prediction]:
        result = {}
        for name in self.names:
            try:
                correction = self.corrections[name] if name in self.corrections else None  # noqa: SIM401 (a ModuleDict has no get)
                if isinstance(correction, LabelCorrection):
                    result[name] = self._corrected(name, correction, images)
                else:
                    result[name] = self._uncorrected(name, images)
            except BatchStatisticsError:
                continue
        self.batches += 1
        return result

    def _uncorrected(self, name: str, images: Tensor) -> Prediction:
        with statistics(self.method.model, self._kind(name)):
            return self.method.run_control(images) if name == "control" else self.method.run_source(images)

    def _corrected(self, name: str, correction: LabelCorrection, images: Tensor) -> Prediction:
        """Predict under the statistics as they stand, then let them take the batch in; the other way round at the start."""
        model, batches = self.method.model, int(self.batches)
        values, kind = correction.statistics(model), self._kind(name)
        if name == "corrected" and batches == 0 and len(images) > 1:
            kind, values = "batch", {}
        if batches < _WARM_UP:
            _, state = self._seen(correction, images, kind, values)
            kind, values = self._kind(name), correction.statistics(model, state)
        prediction, state = self._seen(correction, images, kind, values)
        correction.keep(state)
        return prediction

    def _seen(
        self, correction: LabelCorrection, images: Tensor, kind: Statistics, values: Mapping[str, Tensor]
    ) -> tuple[Prediction, dict[str, Tensor]]:
        with statistics(self.method.model, kind), seen_moments(self.method.model) as seen:
            prediction = self.method.run_source(images, values)
        moments = {layer: inputs[0] for layer, inputs in seen.items() if inputs}
        return prediction, correction.after(moments, prediction.logits.softmax(1))

    def _kind(self, name: str) -> Statistics:
        if name == "control":
            return self._own
        return "source" if name == "source" else "batch" if name == "batch" else "moving"
