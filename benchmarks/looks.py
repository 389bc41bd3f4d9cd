"""What a look of the guard costs on the host, by the number of classes and of features.

python -m holdfast.benchmarks.looks

For each size 20 looks at three candidates and the adapted model beside its control, in batches of
64 random rows: median milliseconds, with the least and the most.
"""

from time import perf_counter

import torch

from holdfast.benchmarks.rounds import ranged
from holdfast.callbacks.guard.evidence import Reference
from holdfast.callbacks.guard.experts import Experts
from holdfast.callbacks.guard.health import Health
from holdfast.callbacks.guard.heard import read_back
from holdfast.callbacks.settings import Tuned
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Candidate

_NAMES: tuple[Candidate, ...] = ("source", "batch", "corrected")
#: Classes and features; rows of a batch, and looks at each size.
SIZES, ROWS, LOOKS = ((4, 256), (14, 2048), (1000, 512), (1000, 2048)), 64, 20


def looks(classes: int, width: int) -> list[float]:
    """Milliseconds of each look."""
    random = torch.Generator().manual_seed(0)
    source = Reference(torch.randn(classes, width, generator=random), torch.ones(classes, width))
    experts, health = Experts(classes, Tuned(), source), Health(classes, Tuned(), source)

    def said() -> Prediction:
        logits = 3 * torch.randn(ROWS, classes, generator=random)
        return Prediction(logits, torch.randn(ROWS, width, generator=random))

    times = []
    for _ in range(LOOKS):
        three = {name: said() for name in _NAMES}
        adapted, control = said(), said()
        start = perf_counter()
        votes, pair = experts.asks(three), health.asks(adapted, control)
        heard = read_back([*votes.values(), *pair])
        experts.hear(dict(zip(votes, heard, strict=False)))
        health.compare(heard[len(votes) :])
        times.append(1000 * (perf_counter() - start))
    return times


def main() -> None:
    """Measure every size, and say so."""
    for classes, width in SIZES:
        print(f"{classes:>5} classes x {width:>4} features: {ranged(looks(classes, width))} ms")


if __name__ == "__main__":
    main()
