"""Which statistics normalisation layers use at test time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from holdfast.tta.distributed import place, sum_of_all, total_of_all
from holdfast.tta.errors import InputError

#: What the option ``normalization`` of a method chooses among.
#: source: running statistics; batch: the batch's own; blend: (1-alpha) of the first and alpha of
#: the second (Schneider et al., NeurIPS 2020); robust: an average that moves by alpha a batch
#: (RoTTA, CVPR 2023); median: the batch's own about its per-channel median (MedBN, CVPR 2024).
Normalization = Literal["batch", "source", "blend", "robust", "median"]
#: All that a layer can do:
#: moving and recording are the halves of ``robust``: normalise by the moving average as it stands,
#: or by the batch while the average takes it in, as training does. ``moving`` also serves
#: statistics that are computed elsewhere.
Statistics = Literal[Normalization, "moving", "recording"]
_MOVING = ("robust", "moving", "recording")

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OTHER_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)


class BatchStatisticsError(InputError):
    """A batch gives a layer a single value per channel, which has no variance."""


class TestTimeBatchNorm(nn.Module):
    """BatchNorm with a choice of statistics, holding the very tensors of the layer that it
    replaces.

    Batch statistics are computed functionally: the source's buffers are neither read nor written,
    so that the source checkpoint stays loadable and the source prediction can be had again. (Train
    mode with momentum 0 would still count batches, and 0·NaN would poison the buffers.)

    Where several processes share a batch, its statistics are those of all of it, but for
    ``median`` and within ``own_share``.

    A layer with moving statistics has buffers of its own, ``moving_mean`` and ``moving_var``, that
    start at the source's. A forward pass computes what they would become; they become it by
    ``keep_moving``, so that a pass that comes to nothing leaves no trace.
    """

    __test__ = False  # the name starts with "Test", and pytest would collect it

    def __init__(self, norm: nn.Module, statistics: Statistics, alpha: float = 0.1) -> None:
        super().__init__()
        self.eps: float = norm.eps  # type: ignore[assignment]
        self.statistics = statistics
        self.alpha = alpha
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", norm.weight)  # type: ignore[arg-type]
        self.register_parameter("bias", norm.bias)  # type: ignore[arg-type]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.register_buffer("moving_mean", None)
        self.register_buffer("moving_var", None)
        self.moving_mean: Tensor | None
        self.moving_var: Tensor | None
        # What a library puts into the layer behind its normalisation: timm's drop and act.
        for name, module in norm.named_children():
            self.add_module(name, module)
        self.latest: tuple[Tensor, Tensor] | None = None
        #: Where to leave mean and mean square (2, C) of what comes in; None: nowhere.
        self.seen: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (N, C, ...)."""
        x = self.normalised(x)
        for module in self.children():
            x = module(x)
        return x

    def normalised(self, x: Tensor) -> Tensor:
        """The same without what the layer holds besides."""
        if self.seen is not None:
            rows = _precise(
                x.detach().movedim(1, -1).flatten(0, -2)
            )  # a view where images lie channels-last
            self.seen.append(torch.stack([rows.mean(0), rows.square().mean(0)]))
        anchor = self._anchor()
        if anchor is not None and self.statistics in ("source", "moving"):
            return self._given(x, *anchor)
        mixed = anchor is not None and self.statistics in ("blend", "robust")
        if x.numel() == x.shape[1] and not mixed and not _shares():
            raise BatchStatisticsError(
                "batch statistics need more than one value per channel, and a layer sees exactly "
                "one: give batches of 2 or more images (stream.batch_size of adapt.py), take the "
                "method source, or a network with GroupNorm (model.norm=group of train.py)"
            )
        if self.statistics == "median":
            return self._normalise(x, *_median_moments(x))
        if anchor is not None and mixed:
            return self._normalise(x, *self._mix(x, anchor))
        if anchor is not None and self.statistics == "recording":
            # As in training, the average takes in the unbiased variance.
            self.latest = _mixed(anchor, _moments(x.detach(), correction=1), self.alpha)
        if _shares():
            return self._normalise(x, *_moments(x))
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def _mix(self, x: Tensor, anchor: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Moments of which a part is the batch's own."""
        blends = self.statistics == "blend"
        own_mean, own_var = _moments(x, correction=int(blends and _shares()))
        if blends and not _shares():  # unbiased, as published; a single value has no variance
            count = x.numel() // x.shape[1]
            own_var = own_var * (count / max(count - 1, 1))
        mean, var = _mixed(anchor, (own_mean, own_var), self.alpha)
        if not blends:
            self.latest = mean.detach(), var.detach()
        return mean, var

    def keep_moving(self) -> None:
        """Let the moving statistics take in the last batch that was seen."""
        if self.latest is not None and self.moving_mean is not None and self.moving_var is not None:
            self.moving_mean.copy_(self.latest[0])
            self.moving_var.copy_(self.latest[1])
            self.latest = None

    def _anchor(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance that do not come from the batch; None where the layer was trained
        without.
        """
        moving = self.statistics in _MOVING
        mean, var = (
            (self.moving_mean, self.moving_var) if moving else (self.running_mean, self.running_var)
        )
        return None if mean is None or var is None else (mean, var)

    def _given(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalise by statistics that are not the batch's."""
        several = x.numel() > x.shape[1] or _shares()  # others may have more values than these
        if self.statistics == "moving" and x.requires_grad and several:
            given = (mean, var, self.weight, self.bias, self.eps)
            y: Tensor = _Renormalised.apply(x, *given)  # type: ignore[no-untyped-call]
            return y
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)

    def _normalise(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if (
            not torch.is_grad_enabled()
        ):  # the fused kernel passes no gradient to given statistics, so it serves here only
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        return _scaled(x, mean, var, self.eps, self.weight, self.bias)


#: Whether passes look at the share of a batch that their process has, and at no more.
_own_share = False


@contextmanager
def own_share() -> Iterator[None]:
    """Within the block, statistics are of this process's share of a batch: for passes that others
    need not make.
    """
    global _own_share
    before, _own_share = _own_share, True
    try:
        yield
    finally:
        _own_share = before


#: Whether what passes look at is part of the batch.
_counted = True


@contextmanager
def uncounted() -> Iterator[None]:
    """Within the block, what this process looks at is no part of the batch of all processes, to
    whose statistics it adds nothing: for one that has none of the images which others look at.
    """
    global _counted
    before, _counted = _counted, False
    try:
        yield
    finally:
        _counted = before


def _shares() -> bool:
    """Whether statistics are those of several processes."""
    return not _own_share and place()[1] > 1


def _precise(x: Tensor) -> Tensor:
    """The same numbers in single precision, or double if they are."""
    return x if x.dtype == torch.float64 else x.float()


def _scaled(
    x: Tensor, mean: Tensor, var: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Normalise (N, C, ...) by given moments (C,), through which gradients pass."""
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)


def _moments_of_all(x: Tensor, correction: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the values of all processes, with gradients."""
    x, dims, part = _precise(x), [0, *range(2, x.dim())], float(_counted)
    shape = (1, -1) + (1,) * (x.dim() - 2)
    count = x.new_tensor([part * x.numel() / x.shape[1]])
    sums = sum_of_all(torch.cat([part * x.sum(dims), count]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    squares = sum_of_all(part * (x - mean.view(shape)).square().sum(dims))
    return mean, squares / (count - correction).clamp(min=1)


def _moments(x: Tensor, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of (N, C, ...), in single precision or better."""
    if _shares():
        return _moments_of_all(x, correction)
    if correction or x.dim() != 4 or x.requires_grad:
        var, mean = torch.var_mean(_precise(x), [0, *range(2, x.dim())], correction=correction)
        return mean, var
    # The fused kernel takes a quarter of var_mean's time on channels-last images; what it
    # normalises is not needed.
    x = _precise(x)
    _, mean, inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, 0.0)
    return mean, torch.where(
        inverse > 0, inverse.square().reciprocal(), 0.0
    )  # 0 stands for no variance at all


_BACKWARD = torch.ops.aten.native_batch_norm_backward


class _Renormalised(torch.autograd.Function):
    """Normalise (N, C, ...) by given statistics (C,), with the gradient of the batch's own (batch
    renormalisation, Ioffe 2017).

    With fixed statistics a lower layer can shift and scale a whole channel, and entropy falls that
    way without any image being told from another; the batch's own take that direction out of the
    gradient. It takes two operations more than an ordinary layer's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, var, weight)
        ctx.eps, ctx.shares = eps, _shares()
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, var, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[place] for place in (0, 3, 4)]
        given = (mean, var, None, None, False, ctx.eps, wanted)
        through, by_weight, by_bias = _BACKWARD(gradient, x, weight, *given)
        unmoved = _unmoved_by_all if ctx.shares else _unmoved
        by_x = unmoved(_precise(through), _precise(x), ctx.eps).to(x.dtype)
        return by_x, None, None, by_weight, by_bias, None


def _unmoved(gradient: Tensor, x: Tensor, eps: float) -> Tensor:
    """What of a gradient at ``x`` (N, C, ...) neither shifts nor scales a whole channel."""
    # Batch norm's own gradient at values that are normalised already.
    normal = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)[0]
    moments = _standard(x.shape[1], x.dtype, x.device)
    only = (True, False, False)
    result: Tensor = _BACKWARD(gradient, normal, None, None, None, *moments, True, eps, only)[0]
    return result


def _unmoved_by_all(gradient: Tensor, x: Tensor, eps: float) -> Tensor:
    """The same where several processes share the batch."""
    dims, shape = [0, *range(2, x.dim())], (1, -1) + (1,) * (x.dim() - 2)
    mean, var = _moments_of_all(x, 0)
    normal = (x - mean.view(shape)) * (var + eps).rsqrt().view(shape)
    count = mean.new_tensor([x.numel() / x.shape[1]])
    sums = [gradient.sum(dims), (gradient * normal).sum(dims), count]
    total = total_of_all(torch.cat(sums))
    shift, scale = (total[:-1] / total[-1]).view(2, *shape)
    return gradient - shift - normal * scale


@lru_cache(maxsize=256)
def _standard(channels: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C,) of values that are normalised."""
    with torch.inference_mode(False):
        return (
            torch.zeros(channels, dtype=dtype, device=device),
            torch.ones(channels, dtype=dtype, device=device),
        )


def _median_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Median (C,), and mean squared deviation from it, of (N, C, ...)."""
    values = _precise(x).transpose(0, 1).flatten(1)
    center = values.median(1).values
    return center, (values - center[:, None]).square().mean(1)


def _mixed(
    anchor: tuple[Tensor, Tensor], moments: tuple[Tensor, Tensor], alpha: float
) -> tuple[Tensor, Tensor]:
    both = zip(anchor, moments, strict=True)
    mean, var = ((1 - alpha) * _precise(a) + alpha * b for a, b in both)
    return mean, var


def choose_statistics(model: nn.Module, statistics: Statistics, alpha: float = 0.1) -> None:
    """Make every BatchNorm of ``model`` use the given statistics, replacing the layers in place.

    Names, parameters and buffers stay the same objects, so state dicts and optimisers are
    unaffected; ``robust`` adds buffers of its own.

    Args:
        model: any network.
        statistics: which ones.
        alpha: the batch's weight in ``blend`` and ``robust``.
    """
    if statistics not in get_args(Statistics):
        raise InputError(
            f"unknown normalization {statistics!r}: choose one of {', '.join(get_args(Statistics))}"
        )
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BATCH_NORMS):
                _refuse_unknown(child, name)
                setattr(parent, name, TestTimeBatchNorm(child, statistics, alpha))
    for layer in adjustable_layers(model):
        layer.statistics, layer.alpha = statistics, alpha
        if (
            statistics in _MOVING
            and layer.running_mean is not None
            and layer.running_var is not None
        ):
            layer.register_buffer("moving_mean", layer.running_mean.clone())
            layer.register_buffer("moving_var", layer.running_var.clone())


#: What a BatchNorm may hold that comes behind it, in this order: timm's ``BatchNormAct2d``.
_BEHIND: tuple[list[str], ...] = (["drop", "act"], ["act"], [])


def _refuse_unknown(norm: nn.Module, name: str) -> None:
    """Refuse a BatchNorm that does more than normalise, unless it is known what.

    Raises:
        InputError: it does.
    """
    kind = type(norm)
    own = kind not in _BATCH_NORMS and "forward" in vars(kind)
    parts = [part for part, _ in norm.named_children()]
    if parts not in _BEHIND or (own and not parts):
        raise InputError(
            f"the layer {name!r}, {kind.__module__}.{kind.__name__}, is a BatchNorm that does "
            "more, which is not known here: build the network with torch.nn's"
        )


def adjustable_layers(model: nn.Module) -> list[TestTimeBatchNorm]:
    """The layers of ``model`` whose statistics can be chosen."""
    return list(named_adjustable_layers(model).values())


def named_adjustable_layers(model: nn.Module) -> dict[str, TestTimeBatchNorm]:
    """The same, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, TestTimeBatchNorm)
    }


def depends_on_batch(model: nn.Module) -> bool:
    """Whether what a model says of an image depends on those beside it, or whether somebody hears
    what its layers see of all of them: a layer takes moments of the batch.
    """
    for module in model.modules():
        if isinstance(module, TestTimeBatchNorm):
            given = module.statistics in ("source", "moving") and module._anchor() is not None
            hooks = (module._forward_hooks, module._forward_pre_hooks)
            if not given or module.seen is not None or any(hooks):
                return True
        elif isinstance(module, _BATCH_NORMS) and (module.training or module.running_mean is None):
            return True
    return False


def statistics_in_use(model: nn.Module) -> dict[str, Any]:
    """By which statistics the adjustable layers normalise, and the moving ones where these do.

    Returns:
        ``choice``, empty where there is no such layer, and ``values`` by the names of the layers'
        running statistics, in whose place they stand.
    """
    layers = named_adjustable_layers(model)
    choice = next((layer.statistics for layer in layers.values()), "")
    values: dict[str, Tensor] = {}
    for name, layer in layers.items() if choice in _MOVING else ():
        if layer.moving_mean is not None and layer.moving_var is not None:
            values[f"{name}.running_mean"] = layer.moving_mean.detach().cpu().clone()
            values[f"{name}.running_var"] = layer.moving_var.detach().cpu().clone()
    return {"choice": choice, "values": values}


@contextmanager
def seen_moments(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Within the block, each adjustable layer leaves mean and mean square (2, channels) of every
    input, by its name.
    """
    layers = named_adjustable_layers(model)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.seen = seen[name]
    try:
        yield seen
    finally:
        for layer in layers.values():
            layer.seen = None


@contextmanager
def statistics(model: nn.Module, choice: Statistics, alpha: float | None = None) -> Iterator[None]:
    """Within the block, the TestTimeBatchNorm layers of ``model`` use ``choice``."""
    layers = adjustable_layers(model)
    before = [(layer.statistics, layer.alpha) for layer in layers]
    for layer in layers:
        layer.statistics = choice
        layer.alpha = layer.alpha if alpha is None else alpha
    try:
        yield
    finally:
        for layer, (value, share) in zip(layers, before, strict=True):
            layer.statistics, layer.alpha = value, share


def is_norm(module: nn.Module) -> bool:
    """Whether the module is a normalisation layer."""
    return isinstance(module, (TestTimeBatchNorm, *_BATCH_NORMS, *_OTHER_NORMS))
