"""What was tried for speed and left out: Tent's loop compiled, and several learning rates at once.

python -m holdfast.benchmarks.tried [networks=[compact,resnet18]] [rates=3] [rounds=5]

Both are held against the same steps as plain loops make them, in turns, in one run. Compiling takes
a minute or two for each network.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from holdfast.benchmarks.plain import LOOPS
from holdfast.benchmarks.speed_cases import CASES, Case
from holdfast.tta import entry
from holdfast.tta.normalization import choose_statistics
from holdfast.tta.objectives import entropy
from holdfast.tta.options import option
from holdfast.tta.selection import norm_affine

USAGE = (
    "usage: python -m holdfast.benchmarks.tried [key=value ...]\n\n"
    "Time what was tried for speed and left out."
)
_CPU = torch.device("cpu")
#: Steps of a round.
_STEPS = 2
Values = Mapping[str, Tensor]


@dataclass
class TriedConfig:
    """Options of the comparison."""

    networks: list[str] = option(["compact", "resnet18"], "cases, by the names of their networks")
    rates: int = option(3, "learning rates at once")
    rounds: int = option(5, "rounds; each variant runs once a round, in turn")


def compiled(case: Case, batches: Sequence[Tensor]) -> dict[str, Callable[[], Any]]:
    """Tent's plain loop, the same on a compiled network, and our method."""
    plain = LOOPS["tent"](case.network(_CPU), case.rate)
    fast = LOOPS["tent"](torch.compile(case.network(_CPU)), case.rate)
    ours = case.method("tent", _CPU)
    return {
        "plain loop": lambda: plain(batches),
        "compiled": lambda: fast(batches),
        "our Tent": lambda: ours(batches),
    }


def swept(
    case: Case, batches: Sequence[Tensor], rates: Sequence[float]
) -> dict[str, Callable[[], Values]]:
    """Tent by gradient descent at each rate in turn, and at all at once by ``torch.func.vmap`` over
    what is adapted; both end with the same values.
    """
    network = case.network(_CPU)
    choose_statistics(network, "batch")
    network.eval()
    adapted = {name: value.detach() for name, value in norm_affine(network).items()}
    fixed = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    fixed = {name: value.detach() for name, value in fixed.items() if name not in adapted}
    lasting = [batch.to(memory_format=torch.channels_last) for batch in batches]

    def step(values: Values, rate: Tensor | float, images: Tensor) -> dict[str, Tensor]:
        slopes = grad(lambda given: _loss(network, {**fixed, **given}, images))(values)
        return {name: value - rate * slopes[name] for name, value in values.items()}

    def in_turn() -> Values:
        ends = []
        for rate in rates:
            values: Values = adapted
            for images in lasting:
                values = step(values, rate, images)
            ends.append(values)
        return {name: torch.stack([end[name] for end in ends]) for name in adapted}

    def at_once() -> Values:
        values = {name: value.expand(len(rates), *value.shape) for name, value in adapted.items()}
        for images in lasting:
            values = vmap(step, (0, 0, None))(values, torch.tensor(rates), images)
        return values

    return {"rates in turn": in_turn, "rates at once": at_once}


def _loss(network: nn.Module, values: Values, images: Tensor) -> Tensor:
    return entropy(functional_call(network, dict(values), (images,))).mean()


def timed(work: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each variant, in turns, after one that sets things up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            start = perf_counter()
            run()
            if number:
                times[name].append(perf_counter() - start)
    return times


def ratios(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Of each variant to the first one, round by round."""
    first, *_ = times.values()
    return {name: [a / b for a, b in zip(own, first, strict=True)] for name, own in times.items()}


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = entry.configured(TriedConfig, {}, argv)
        rates = torch.logspace(-5, -3, config.rates).tolist()
        for name in config.networks:
            case = CASES[name]
            batches = case.batches(_STEPS, _CPU)
            for work in (compiled(case, batches), swept(case, batches, rates)):
                for variant, found in ratios(timed(work, config.rounds)).items():
                    spread = f"{min(found):.2f}–{max(found):.2f}"
                    print(f"{name:<10}{variant:<16}{statistics.median(found):.2f} ({spread})")

    return entry.run(run, TriedConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
