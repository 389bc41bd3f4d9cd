"""InTEnt: predict each image under several mixes of the source's statistics and its own, and weigh
what they say by how sure it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from holdfast.tta.errors import InputError
from holdfast.tta.marginal import likeliest
from holdfast.tta.methods.base import Method, Prediction, Update
from holdfast.tta.methods.settings import MethodConfig
from holdfast.tta.normalization import (
    BatchStatisticsError,
    Statistics,
    TestTimeBatchNorm,
    statistics,
)
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option
from holdfast.tta.prediction import joined


@dataclass
class InTEntConfig(MethodConfig):
    """Hyperparameters of InTEnt."""

    mixes: int = option(6, "mixes of statistics, evenly from the source's to the image's own")
    normalized: bool = option(
        True, "scale entropies to [0, 1] over the mixes of an image before they weigh, as released"
    )

    def __post_init__(self) -> None:
        if self.mixes < 2:
            raise InputError(f"method.mixes={self.mixes} must be at least 2")


class InTEnt(Method):
    """Mean of an image's predictions, by softmax of minus their entropy, in which each predicted
    class counts alike; nothing is learned.
    """

    Config: ClassVar[type[MethodConfig]] = InTEntConfig
    config: InTEntConfig
    normalization: ClassVar[Statistics] = "source"
    paper: ClassVar[str] = "Dong et al., CVPR workshop 2024"
    passes: ClassVar[str] = "7/0 an image"
    updates: ClassVar[str] = "predictions"
    needs_mixed_batch: ClassVar[bool] = False

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Each image by itself."""
        return joined([self._of_one(image) for image in torch.split(images, 1)])

    def learn(self, images: Tensor, prediction: Prediction) -> Update:
        """Nothing: the prediction is all."""
        return Update()

    def _of_one(self, image: Tensor) -> Prediction:
        own = self._own_statistics(image)
        if not own:  # nothing to be mixed
            return self.run(image)
        said = [self.run(image, self._mixed(own, share)) for share in self._shares()]
        doubts = torch.stack([self._doubt(one) for one in said])
        weights = _weights(doubts, normalized=self.config.normalized)
        rows = sum(w * one.logits.float().softmax(1) for w, one in zip(weights, said, strict=True))
        logits = rows.clamp(min=torch.finfo(torch.float32).tiny).log()
        best = said[int(weights.argmax())]
        if best.output is None:
            return best._replace(logits=logits)
        chances = [self.task.probabilities(one.served.float()) for one in said]
        mean = sum(w * p for w, p in zip(weights, chances, strict=True))
        return best._replace(logits=logits, output=self.task.inverse(mean))

    def _shares(self) -> list[float]:
        return torch.linspace(0, 1, self.config.mixes).tolist()

    def _own_statistics(self, image: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and unbiased variance of what each BatchNorm layer sees, while all normalise by the
        image, as in training; of layers without running ones none, and none at all where a layer
        sees a single value. Of an image in windows, all of them count.
        """
        with statistics(self.model, "batch"), _seen(self.layers) as seen:
            try:
                self.run(image)
            except BatchStatisticsError:  # a single value has no variance
                return {}
        return {name: (one.mean, one.scatter / (one.values - 1)) for name, one in seen.items()}

    def _mixed(self, own: dict[str, tuple[Tensor, Tensor]], share: float) -> dict[str, Tensor]:
        values = {}
        for name, moments in own.items():
            for key, moment in zip(("running_mean", "running_var"), moments, strict=True):
                values[f"{name}.{key}"] = self.model.get_buffer(f"{name}.{key}").lerp(moment, share)
        return values

    def _doubt(self, said: Prediction) -> Tensor:
        """Mean over the predicted classes of their rows' mean entropy, in bits."""
        values = entropy(said.logits.float()) / torch.log(torch.tensor(2.0))
        cells = said.cells(likeliest(said.logits))
        counts = torch.bincount(cells, minlength=self.task.cells)
        sums = values.new_zeros(self.task.cells).index_add_(0, cells, values)
        return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum()


def _weights(doubts: Tensor, *, normalized: bool) -> Tensor:
    """(K,) softmax of minus the entropies (K,)."""
    sure = -doubts
    if normalized:
        span = sure.max() - sure.min()
        sure = (sure - sure.min()) / span.clamp(min=torch.finfo(span.dtype).tiny)
    return sure.softmax(0)


class _Moments(NamedTuple):
    """Of what a layer saw: values of a channel, their mean, and summed squared distance to it."""

    values: int
    mean: Tensor
    scatter: Tensor


def _moments(x: Tensor) -> _Moments:
    """Moments of (N, C, ...)."""
    count = x.numel() // x.shape[1]
    var, mean = torch.var_mean(x.float(), [0, *range(2, x.dim())])
    return _Moments(count, mean, var * (count - 1))


def _together(first: _Moments, second: _Moments) -> _Moments:
    """Moments of both (Chan et al.'s pairwise update)."""
    values = first.values + second.values
    share, delta = second.values / values, second.mean - first.mean
    scatter = first.scatter + second.scatter + delta.square() * first.values * share
    return _Moments(values, first.mean + share * delta, scatter)


@contextmanager
def _seen(layers: dict[str, TestTimeBatchNorm]) -> Iterator[dict[str, _Moments]]:
    """Within the block, layers with running statistics leave the moments of all that they see."""
    seen: dict[str, _Moments] = {}

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            own = _moments(args[0].detach())
            seen[name] = _together(seen[name], own) if name in seen else own

        return hook

    hooks = [
        layer.register_forward_pre_hook(note(name))
        for name, layer in layers.items()
        if layer.running_mean is not None
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
