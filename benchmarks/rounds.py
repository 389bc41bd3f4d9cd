"""Work that takes turns, so that what else a machine does meets all of it alike, and its times as
ratios within rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from time import perf_counter, process_time
from typing import Any

import torch

CPU = torch.device("cpu")


def seconds_now(device: torch.device = CPU) -> float:
    """The clock, once the device has done what it was given.

    On one thread it is that of the processor, which stands still while other programs have it; of
    several threads that would be the sum.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return process_time()
    return perf_counter()


def in_turns(
    work: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device = CPU,
    *,
    untimed: int = 1,
    tell: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each round of each piece of work.

    Args:
        work: by name; one that returns a float tells its seconds by itself.
        rounds: that are timed, in each of which all run once.
        device: that has to be done with a piece before the next begins.
        untimed: rounds beforehand, which set things up.
        tell: is called behind each piece.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-untimed, rounds):
        for name, run in work.items():
            start = seconds_now(device)
            told = run()
            taken = told if isinstance(told, float) else seconds_now(device) - start
            if turn >= 0:
                times[name].append(taken)
            tell()
    return times


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of two pieces of work, round by round, which a machine's moods do not touch."""
    return [time / other for time, other in zip(times, others, strict=True)]


def ranged(values: Sequence[float], form: str = "{:.2f}", mean: bool = False) -> str:
    """The median, or the mean, with the least and the most, as tables have it.

    >>> ranged([0.5, 2, 0.75])
    '0.75 (0.50–2.00)'
    """
    middle, low, high = (fmean if mean else median)(values), min(values), max(values)
    return f"{form.format(middle)} ({form.format(low)}–{form.format(high)})"
