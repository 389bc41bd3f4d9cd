"""What was tried for speed and left out, as variants of the speed benchmark: Tent's loop compiled,
and several learning rates at once.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from holdfast.benchmarks.plain import LOOPS
from holdfast.benchmarks.speed_cases import Case, Run
from holdfast.tta.normalization import choose_statistics
from holdfast.tta.objectives import entropy
from holdfast.tta.selection import norm_affine

#: Learning rates at once.
RATES = (1e-5, 1e-4, 1e-3)
Values = Mapping[str, Tensor]


def tried(case: Case, device: torch.device) -> dict[str, Run]:
    """What takes turns with the plain loop, by name: compiling takes a minute or two."""
    fast = LOOPS["tent"](torch.compile(case.network(device)), case.rate)
    in_turn, at_once = swept(case, device)
    return {"compiled: tent": fast, "plain: rates": in_turn, "rates": at_once}


def swept(
    case: Case, device: torch.device, rates: Sequence[float] = RATES
) -> tuple[Callable[[Sequence[Tensor]], Values], Callable[[Sequence[Tensor]], Values]]:
    """Tent by gradient descent at each rate in turn, and at all at once by ``torch.func.vmap`` over
    what is adapted; both end with the same values.
    """
    network = case.network(device)
    choose_statistics(network, "batch")
    network.eval()
    adapted = {name: value.detach() for name, value in norm_affine(network).items()}
    fixed = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    fixed = {name: value.detach() for name, value in fixed.items() if name not in adapted}

    def step(values: Values, rate: Tensor | float, images: Tensor) -> dict[str, Tensor]:
        slopes = grad(lambda given: _loss(network, {**fixed, **given}, images))(values)
        return {name: value - rate * slopes[name] for name, value in values.items()}

    def in_turn(batches: Sequence[Tensor]) -> Values:
        ends = []
        for rate in rates:
            values: Values = adapted
            for images in _lasting(batches):
                values = step(values, rate, images)
            ends.append(values)
        return {name: torch.stack([end[name] for end in ends]) for name in adapted}

    def at_once(batches: Sequence[Tensor]) -> Values:
        values = {name: value.expand(len(rates), *value.shape) for name, value in adapted.items()}
        for images in _lasting(batches):
            values = vmap(step, (0, 0, None))(values, torch.tensor(rates, device=device), images)
        return values

    return in_turn, at_once


def _loss(network: nn.Module, values: Values, images: Tensor) -> Tensor:
    return entropy(functional_call(network, dict(values), (images,))).mean()


def _lasting(batches: Sequence[Tensor]) -> list[Tensor]:
    """As methods lay out images on CPUs."""
    return [batch.to(memory_format=torch.channels_last) for batch in batches]
