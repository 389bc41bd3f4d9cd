"""Forward passes through a network that adapts: with other values, under other statistics."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.tta.layout import as_channels_last, prefers_channels_last
from holdfast.tta.methods.prediction import Prediction
from holdfast.tta.normalization import Statistics, choose_statistics, named_adjustable_layers
from holdfast.tta.outputs import as_logits, check_width
from holdfast.tta.selection import find_head


class Passes(nn.Module):
    """A network, and how to run it; the ground floor of every method.

    Of the network it keeps what goes into the head, the features. Its BatchNorm layers are replaced
    by ones with a choice of statistics (same names, same tensors). Statistics that move take in a
    batch by ``keep_moving`` only, so that passes which come to nothing leave no trace.

    Args:
        model: from images (N, channels, ...) to logits (N, C); see ``Method``.
        num_classes: C.
        normalization: statistics of BatchNorm layers; auto: somebody else chooses, by
            ``use_statistics``.
        alpha: the batch's weight in blend and robust statistics.
        head: name of the module whose input counts as features; the last Linear by default.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        normalization: Statistics | Literal["auto"],
        alpha: float,
        head: str | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes
        self._features: Tensor | None = None
        classifier = find_head(model, head)
        classifier.register_forward_pre_hook(self._keep_features)
        self.head_name = next(
            name for name, module in model.named_modules() if module is classifier
        )
        check_width(classifier, self.head_name, num_classes)
        #: Whether somebody else chooses the statistics, by ``use_statistics``.
        self.chosen_elsewhere = normalization == "auto"
        if normalization == "auto":
            choose_statistics(model, "moving")
            normalization = "source"  # until then
        choose_statistics(model, normalization, alpha)
        #: Layers whose statistics can be chosen, by name: looked for once, since finding them takes
        #: longer than using them.
        self.layers = named_adjustable_layers(model)
        averaging = {} if self.chosen_elsewhere else self.layers
        #: Layers whose moving averages depend on the weights below them, so that the control has
        #: its own, by their prefix.
        self._averaging = {
            f"{name}.": layer for name, layer in averaging.items() if layer.moving_mean is not None
        }
        self.channels_last = prefers_channels_last(model)

    def run(self, images: Tensor, values: Mapping[str, Tensor] | None = None) -> Prediction:
        """One forward pass, with ``values`` in place of the tensors of those names."""
        # Where channels last must not be, images that happen to lie so (decoded from pixels, say)
        # must not bring it in.
        images = as_channels_last(images) if self.channels_last else images.contiguous()
        output = (
            self.model(images)
            if not values
            else functional_call(self.model, dict(values), (images,))
        )
        features, self._features = self._features, None
        assert features is not None, "the head did not run"
        return Prediction(as_logits(output, self.num_classes), features)

    def run_apart(
        self, images: Tensor, values: Mapping[str, Tensor], moving: Mapping[str, Tensor]
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """One forward pass with moving statistics of its own, in place of the model's.

        Args:
            images: (N, channels, ...).
            values: in place of the tensors of those names.
            moving: the statistics as they stand, by the names of the layers' buffers.

        Returns:
            The prediction, and the statistics once they have taken the images in; the model's stay
            as they were.
        """
        latest = {name: layer.latest for name, layer in self._averaging.items()}
        prediction = self.run(images, {**values, **moving})
        after = dict(moving)
        for name, layer in self._averaging.items():
            if layer.latest is not None:
                after[f"{name}moving_mean"], after[f"{name}moving_var"] = layer.latest
            layer.latest = latest[name]
        return prediction, after

    def moving_statistics(self) -> dict[str, Tensor]:
        """The model's moving statistics, by the names of the layers' buffers; none where they do
        not move.
        """
        return {
            f"{name}{key}": self.model.get_buffer(f"{name}{key}")
            for name in self._averaging
            for key in ("moving_mean", "moving_var")
        }

    def keep_moving(self) -> None:
        """Let moving normalisation statistics take in the last batch that was predicted."""
        for layer in self.layers.values():
            layer.keep_moving()

    def forget_moving(self) -> None:
        """Let them take in nothing: later passes of an update are not part of the stream."""
        for layer in self.layers.values():
            layer.latest = None

    @torch.no_grad()
    def use_statistics(self, choice: Statistics, values: Mapping[str, Tensor]) -> None:
        """Normalise by another choice of statistics from now on; for ``normalization="auto"``.

        Args:
            choice: which ones.
            values: of moving statistics, by the names of the layers' buffers.
        """
        for layer in self.layers.values():
            layer.statistics = choice
        for name, value in values.items():
            self.model.get_buffer(name).copy_(value)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode whatever a training loop asks: dropout is off, and statistics have a
        choice of their own.
        """
        return super().train(False)

    def _keep_features(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._features = args[0]
