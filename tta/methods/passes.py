"""Forward passes through a network that adapts: with other values, under other statistics."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.tta.errors import InputError
from holdfast.tta.layout import asked, fastest_layout
from holdfast.tta.methods.prediction import Prediction
from holdfast.tta.normalization import Statistics, choose_statistics, named_adjustable_layers
from holdfast.tta.outputs import refuse_probabilities
from holdfast.tta.selection import name_of
from holdfast.tta.tasks import Single, Task
from holdfast.tta.volumes import halve_single_volumes


class Passes(nn.Module):
    """A network, and how to run it; the ground floor of every method.

    Of the network it keeps what goes into the head, the features. Its BatchNorm layers are replaced
    by ones with a choice of statistics (same names, same tensors). Statistics that move take in a
    batch by ``keep_moving`` only, so that passes which come to nothing leave no trace.

    Args:
        model: from images (N, channels, ...) to an answer; see ``Method``.
        num_classes: classes of the data, or findings.
        normalization: statistics of BatchNorm layers; auto: somebody else chooses, by
            ``use_statistics``.
        alpha: the batch's weight in blend and robust statistics.
        head: name of the module whose input counts as features; None: the task finds it.
        task: what an answer means; None: one label an image.

    Attributes:
        num_classes: C, of a row.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        normalization: Statistics | Literal["auto"],
        alpha: float,
        head: str | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task or Single(num_classes)
        self.num_classes = self.task.row_classes
        self._features: Tensor | None = None
        self._answered = False
        classifier = self.task.head(model, head)
        classifier.register_forward_pre_hook(self._keep_features)
        self.head_name = name_of(model, classifier)
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
        self.layout = fastest_layout(model)
        halve_single_volumes(model)

    def run(
        self,
        images: Tensor,
        values: Mapping[str, Tensor] | None = None,
        back: Callable[[Tensor], Tensor] | None = None,
    ) -> Prediction:
        """One forward pass.

        Args:
            images: (N, channels, ...).
            values: in place of the tensors of those names.
            back: moves what is said of pixels (N, K, *spatial) to where they came from, where the
                images were moved; features stay where they are.

        Raises:
            InputError: the head did not run, or what the network answers is not of the task.
        """
        # Where channels last must not be, images that happen to lie so (decoded from pixels, say)
        # must not bring it in.
        answer, self.layout = asked(
            self.model, self.layout, images, lambda laid_out: self._answer(laid_out, values)
        )
        features, self._features = self._features, None
        if features is None:
            raise InputError(
                f"{self.head_name!r}, taken for the last layer, did not run: name the one whose "
                "input counts as features, head=NAME"
            )
        output = self.task.output(answer)
        if not self._answered:  # it costs a read-back to the host
            refuse_probabilities(output)
            self._answered = True
        return self.task.rows(output if back is None else back(output), features)

    def run_apart(
        self,
        images: Tensor,
        values: Mapping[str, Tensor],
        moving: Mapping[str, Tensor],
        back: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """One forward pass with moving statistics of its own, in place of the model's.

        Args:
            images: (N, channels, ...).
            values: in place of the tensors of those names.
            moving: the statistics as they stand, by the names of the layers' buffers.
            back: see ``run``.

        Returns:
            The prediction, and the statistics once they have taken the images in; the model's stay
            as they were.
        """
        latest = {name: layer.latest for name, layer in self._averaging.items()}
        prediction = self.run(images, {**values, **moving}, back)
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
            if layer.latest is not None:  # to ask is cheaper than a module's assignment
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
        if values:
            buffers = [self.model.get_buffer(name) for name in values]
            torch._foreach_copy_(buffers, [*values.values()])

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode whatever a training loop asks: dropout is off, and statistics have a
        choice of their own.
        """
        return super().train(False)

    def _answer(self, images: Tensor, values: Mapping[str, Tensor] | None) -> Any:
        if not values:
            return self.model(images)
        return functional_call(self.model, dict(values), (images,))

    def _keep_features(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._features = args[0]
