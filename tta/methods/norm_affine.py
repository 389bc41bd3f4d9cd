"""Methods that adapt the scales and shifts of normalisation layers, as most do."""

from typing import ClassVar

from torch import nn

from holdfast.tta.methods.base import Method
from holdfast.tta.methods.settings import MethodConfig, UpdateConfig
from holdfast.tta.selection import last_stage, norm_affine


class NormAffineMethod(Method):
    """A method that adapts weight and bias of every normalisation layer."""

    Config: ClassVar[type[MethodConfig]] = UpdateConfig
    config: UpdateConfig
    passes: ClassVar[str] = "1/1"
    updates: ClassVar[str] = "norm affine"
    #: Whether the published method leaves the last stage of the network alone.
    spares_last_stage: ClassVar[bool] = False

    def adapts(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Weights and biases of the normalisation layers, but the excluded ones."""
        exclude = self.config.exclude
        if exclude is None:
            exclude = last_stage(model) if self.spares_last_stage else []
        return norm_affine(model, exclude)
