"""Which statistics normalisation layers use at test time, and which of their parameters can be adapted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from tta.errors import InputError

Statistics = Literal["source", "batch"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OTHER_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)


class BatchStatisticsError(InputError):
    """A batch gives a layer a single value per channel, which has no variance."""


class TestTimeBatchNorm(nn.Module):
    """BatchNorm with a choice of statistics, holding the very tensors of the layer that it replaces.

    Batch statistics are computed functionally: the source's buffers are neither read nor written, so that the source
    checkpoint stays loadable and the source prediction can be had again. (Train mode with momentum 0 would still count
    batches, and 0·NaN would poison the buffers.)
    """

    __test__ = False  # the name starts with "Test", and pytest would collect it

    def __init__(self, norm: nn.Module, statistics: Statistics) -> None:
        super().__init__()
        self.eps: float = norm.eps  # type: ignore[assignment]
        self.statistics = statistics
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", norm.weight)  # type: ignore[arg-type]
        self.register_parameter("bias", norm.bias)  # type: ignore[arg-type]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.running_mean: Tensor | None
        self.running_var: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (N, C, ...)."""
        if self.statistics == "source" and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        if x.numel() == x.shape[1]:
            raise BatchStatisticsError(
                "batch statistics need more than one value per channel, and a layer sees exactly one: "
                "use stream.batch_size of 2 or more, method=source, or a network trained with model.norm=group"
            )
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def choose_statistics(model: nn.Module, statistics: Statistics) -> None:
    """Make every BatchNorm of ``model`` use the given statistics, replacing the layers in place.

    Names, parameters and buffers stay the same objects, so state dicts and optimisers are unaffected.
    """
    if statistics not in get_args(Statistics):
        raise InputError(f"unknown normalization {statistics!r}: choose one of {', '.join(get_args(Statistics))}")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TestTimeBatchNorm):
                child.statistics = statistics
            elif isinstance(child, _BATCH_NORMS):
                setattr(parent, name, TestTimeBatchNorm(child, statistics))


@contextmanager
def statistics(model: nn.Module, choice: Statistics) -> Iterator[None]:
    """Within the block, the TestTimeBatchNorm layers of ``model`` use ``choice``."""
    layers = [m for m in model.modules() if isinstance(m, TestTimeBatchNorm)]
    before = [layer.statistics for layer in layers]
    for layer in layers:
        layer.statistics = choice
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.statistics = value


def norm_affine(model: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Weights and biases of the normalisation layers, by their names in ``model.named_parameters()``.

    Args:
        model: any network.
        exclude: names of submodules whose layers are left alone.

    Raises:
        InputError: the network has no such parameter.
    """
    found = {
        f"{layer}.{name}": parameter
        for layer, module in model.named_modules()
        if isinstance(module, (TestTimeBatchNorm, *_BATCH_NORMS, *_OTHER_NORMS))
        if not any(layer == prefix or layer.startswith(f"{prefix}.") for prefix in exclude)
        for name, parameter in module.named_parameters(recurse=False)
    }
    if not found:
        raise InputError(
            f"{type(model).__name__} has no normalisation layer with weights that could be adapted (looked for BatchNorm, "
            "InstanceNorm, GroupNorm and LayerNorm): build it with affine normalisation layers, or use method=source"
        )
    return found
