"""What a network is to the programs: input scaling inside, and a layer whose input are features."""

import torch
from torch import Tensor, nn

from holdfast.tta.libraries import find_classifier, picked
from holdfast.tta.outputs import as_logits


class Network(nn.Module):
    """Standardise the channels, then say of images to which class they belong.

    Args:
        channels: channels of the images.
        head_name: name of the Linear layer that classifies; its input counts as features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, head_name: str) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.head_name = head_name

    @property
    def classifier(self) -> nn.Linear:
        """The layer of ``head_name``."""
        layer = self.get_submodule(self.head_name)
        assert isinstance(layer, nn.Linear)
        return layer

    def standardised(self, images: Tensor) -> Tensor:
        """Images (N, channels, ...) scaled to [0, 1], by the network's mean and deviation."""
        shape = (1, -1) + (1,) * (images.dim() - 2)
        return (images - self.mean.view(shape)) / self.std.view(shape)


class SplitNetwork(Network):
    """A network in two parts.

    Args:
        features: module from images (N, channels, ...) to (N, width).
        width: D, the number of features.
        num_classes: C.
        channels: channels of the images.
    """

    def __init__(self, features: nn.Module, width: int, num_classes: int, channels: int) -> None:
        super().__init__(channels, "head")
        self.features = features
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, channels, ...) scaled to [0, 1]."""
        return self.head(self.features(self.standardised(images)))


class WholeNetwork(Network):
    """A network as somebody else made it, which answers with logits or with what holds them.

    Args:
        model: from images (N, channels, ...).
        num_classes: C.
        channels: channels of the images.
        head: name of its classifier; None: a Linear layer of C outputs.
        output: which of its outputs holds the logits, by position or name; None: the first (N, C).

    Raises:
        InputError: it has no such classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        channels: int,
        head: str | None = None,
        output: int | str | None = None,
    ) -> None:
        found = find_classifier(model, num_classes, head)
        super().__init__(channels, f"model.{found}" if found else "model")
        self.model = model
        self.num_classes, self.output = num_classes, output

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, channels, ...) scaled to [0, 1]."""
        answer = picked(self.model(self.standardised(images)), self.output)
        return as_logits(answer, self.num_classes)
