"""Methods as one would write them down, from their papers, in a plain eager loop: what speed is
measured against.

Each takes a network and a learning rate, and gives a function of batches that adapts to them in
turn and answers with their logits.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.methods.eta import redundancy_margin

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_OTHERS = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)
_NORMS = (*_BATCH_NORMS, *_OTHERS)
Step = Callable[[Tensor], Tensor]
Loop = Callable[[Iterable[Tensor]], list[Tensor]]


def _opened(model: nn.Module) -> list[nn.Parameter]:
    """Weights and biases of the normalisation layers, under the batch's statistics."""
    model.train()
    model.requires_grad_(False)
    parameters: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.requires_grad_(True)
            parameters += list(module.parameters())
        if isinstance(module, _BATCH_NORMS):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return parameters


def _entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def tent(model: nn.Module, lr: float = 1e-3, **options: Any) -> Step:
    """Entropy of all predictions; ``options`` are the optimiser's."""
    optimizer = torch.optim.Adam(_opened(model), lr, **options)

    def step(images: Tensor) -> Tensor:
        logits = model(images)
        torch.autograd.backward(_entropy(logits).mean())
        optimizer.step()
        optimizer.zero_grad()
        return logits.detach()

    return step


def eata(model: nn.Module, lr: float = 1e-3, fishers: Mapping[str, Tensor] | None = None) -> Step:
    """Entropy of reliable predictions unlike the past ones, and a pull to the source.

    The pull has weight 1, as published for ten classes.
    """
    own = _opened(model)
    optimizer = torch.optim.Adam(own, lr)
    source = [p.detach().clone() for p in own]
    weights = [torch.ones_like(p) for p in source] if fishers is None else [*fishers.values()]
    mean: Tensor | None = None

    def step(images: Tensor) -> Tensor:
        nonlocal mean
        logits = model(images)
        classes = logits.shape[1]
        loss, margin = _entropy(logits), 0.4 * math.log(classes)
        kept = loss < margin
        if mean is not None:
            alike = torch.cosine_similarity(mean[None], logits.softmax(1), dim=1)
            # With the published .05, of 1000 classes, hardly a sample of few would be left.
            kept = kept & (alike.abs() < redundancy_margin(classes))
        if kept.any():
            now = logits[kept].softmax(1).mean(0).detach()
            mean = now if mean is None else 0.9 * mean + 0.1 * now
            total = (loss[kept] / (loss[kept].detach() - margin).exp()).mean()
            pull = zip(own, source, weights, strict=True)
            far = sum((w * (p - s) ** 2).sum() for p, s, w in pull)
            torch.autograd.backward(total + far)
            optimizer.step()
        optimizer.zero_grad()
        return logits.detach()

    return step


def sar(model: nn.Module, lr: float = 1e-3) -> Step:
    """Sharpness-aware entropy of reliable predictions: two passes a step."""
    parameters = _opened(model)
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9)

    def step(images: Tensor) -> Tensor:
        logits = model(images)
        loss, margin = _entropy(logits), 0.4 * math.log(logits.shape[1])
        kept = loss < margin
        if kept.any():
            torch.autograd.backward(loss[kept].mean())
            # Layers that nothing runs through have no gradient.
            slopes = [(p, p.grad) for p in parameters if p.grad is not None]
            norm = torch.stack([g.norm() for _, g in slopes]).norm()
            before = [p.detach().clone() for p, _ in slopes]
            with torch.no_grad():
                for p, g in slopes:
                    p.add_(0.05 * g / (norm + 1e-12))
            optimizer.zero_grad()
            second = _entropy(model(images))[kept]
            torch.autograd.backward(second[second < margin].mean())
            with torch.no_grad():
                for (p, _), value in zip(slopes, before, strict=True):
                    p.copy_(value)
            optimizer.step()
        optimizer.zero_grad()
        return logits.detach()

    return step


def cotta(model: nn.Module, lr: float = 1e-3) -> Step:
    """A mean teacher of all weights, some of which are restored at random."""
    _opened(model)
    model.requires_grad_(True)
    source, teacher = copy.deepcopy(model.state_dict()), copy.deepcopy(model)
    anchor = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr)

    def step(images: Tensor) -> Tensor:
        logits = model(images)
        with torch.no_grad():
            sure = anchor(images).softmax(1).amax(1).mean()
            told = teacher(images)
            if sure < 0.92:
                views = [teacher(images + 0.01 * torch.randn_like(images)) for _ in range(32)]
                told = torch.stack(views).mean(0)
        torch.autograd.backward(-(told.softmax(1) * logits.log_softmax(1)).sum(1).mean())
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for mean, now in zip(teacher.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 0.001)
            for name, p in model.named_parameters():
                p.copy_(torch.where(torch.rand_like(p) < 0.01, source[name], p))
        return told

    return step


def _looped(make: Callable[..., Step], *given: Any, **options: Any) -> Loop:
    """The loop over batches that takes a method's steps; arguments are the method's."""
    step = make(*given, **options)
    return lambda batches: [step(images) for images in batches]


#: The loops, by the method that each is.
LOOPS: dict[str, Callable[..., Loop]] = {
    make.__name__: partial(_looped, make) for make in (tent, eata, sar, cotta)
}
