"""The grid of cells: what is crossed with what, and a balanced part of it. All deterministic."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T", bound=tuple[Hashable, ...])


#: Candidates, drawn at random, that a balanced choice is made among: of more it takes minutes.
_POOL = 2000
#: The network of a source model where nothing else is said; see ``benchmarks.config.NETWORKS``.
NETWORK = "compact"
#: Orders that adapt.py has as options of its ``prevalence``: all classes equally often; half of
#: them, or two, equally often; 85 % of one class, and of the next from the middle on; one class for
#: good.
BALANCED, SUBSET, SWITCH, ONE = "balanced", "subset", "switch", "one"
ORDERS = (BALANCED, SUBSET, SWITCH, ONE)


class Setting(NamedTuple):
    """One stream: images, the source's network that meets them, what was done to them, and how
    they arrive; ``severity`` is 0 without a shift.
    """

    data: str
    target: str
    network: str
    shift: str
    severity: int
    stream: str
    batch_size: int
    seed: int


class MethodAtRate(NamedTuple):
    """What runs on a stream: a method, by its label, and a multiple of its default learning rate,
    or an optimiser and a rate.
    """

    method: str
    rate: float | str


#: Streams with the cases that run on each, in the order in which they run.
Grid = list[tuple[Setting, list[MethodAtRate]]]


def settings(
    targets: Sequence[str],
    shifts: Sequence[str],
    severities: Sequence[int],
    streams: Sequence[str],
    seeds: Sequence[int],
    networks: Sequence[str] = (NETWORK,),
    batch_sizes: Sequence[int] = (64,),
) -> list[Setting]:
    """All streams of the axes; a target is written DATA/DOMAIN, or DATA where there is but one
    domain.
    """
    shifted = [("none", 0)] if "none" in shifts else []
    shifted += product([shift for shift in shifts if shift != "none"], severities)
    return [
        Setting(*_named(target), network, *shift, stream, batch_size, seed)
        for target, network, shift, stream, batch_size, seed in product(
            targets, networks, shifted, streams, batch_sizes, seeds
        )
    ]


def create_grid(
    streams: Sequence[Setting],
    cases: Sequence[MethodAtRate],
    cells: int | None = None,
    per_stream: int | None = None,
) -> Grid:
    """Cross streams with cases, or take a balanced part of the product.

    A part covers each value of each axis, and each pair of values of two axes, about equally often.
    Streams share their references among their cells, so a part has few streams with several cases
    rather than many with one.

    Args:
        streams: from ``settings``.
        cases: methods and learning rates.
        cells: how many cells to take; None: all.
        per_stream: cases on each stream; None: all.
    """
    per_stream = min(per_stream or len(cases), len(cases))
    wanted = len(streams) * per_stream if cells is None else min(cells, len(streams) * per_stream)
    chosen = balanced(streams, -(-wanted // per_stream))
    counts: Counter[Hashable] = Counter()
    grid: Grid = []
    for setting in chosen:
        left = wanted - sum(len(part) for _, part in grid)
        # Seeds are replicates: with which method they meet is left to chance.
        part = balanced(cases, min(per_stream, left), counts, context=setting[:-1])
        grid.append((setting, sorted(part, key=cases.index)))
    return sorted(grid, key=lambda item: streams.index(item[0]))


def balanced(
    candidates: Sequence[T],
    count: int,
    counts: Counter[Hashable] | None = None,
    context: tuple[Hashable, ...] = (),
) -> list[T]:
    """Choose ``count`` distinct candidates so that values, and pairs of values, occur equally
    often.

    Greedy: the next one is that whose values and pairs have occurred least so far; a seeded draw
    breaks ties.

    Args:
        candidates: tuples, an entry an axis.
        count: how many, at most ``len(candidates)``.
        counts: occurrences so far, kept up to date; None: none yet.
        context: values that go along with each choice, in the pairs.
    """
    if count >= len(candidates):
        return list(candidates)
    counts = Counter() if counts is None else counts
    rng = np.random.default_rng(counts.total())
    pool = max(_POOL, 2 * count)
    open_ = [candidates[i] for i in rng.permutation(len(candidates))[:pool]]
    parts = {candidate: list(_parts(candidate, context)) for candidate in open_}
    chosen = []
    for _ in range(count):
        best = min(open_, key=lambda candidate: sum(counts[part] for part in parts[candidate]))
        counts.update(parts[best])
        open_.remove(best)
        chosen.append(best)
    return chosen


def _named(target: str) -> tuple[str, str]:
    data, _, domain = target.partition("/")
    return data, domain or data


def _parts(candidate: tuple[Hashable, ...], context: tuple[Hashable, ...]) -> Iterable[Hashable]:
    values = [(axis, value) for axis, value in enumerate(candidate)]
    yield from values
    yield from combinations(values, 2)
    yield from product(values, [("context", axis, value) for axis, value in enumerate(context)])
