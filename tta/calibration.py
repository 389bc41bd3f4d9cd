"""From statistics of healthy streams to thresholds at a chosen rate of false alarms: pure functions
of plain numbers.

A calibration holds, for each threshold of the guard, the tail of its statistic over streams on
which nothing was wrong. Some dozens of streams show no event of one in a hundred, so the tail is
extrapolated: what exceeds the median is taken to follow a generalised Pareto law (Pickands, 1975),
fitted by the method of moments (Hosking and Wallis, 1987).
"""

import math
from collections.abc import Mapping, Sequence

#: Batches of the stream for which a rate of false alarms is stated. One of the calibration is
#: shorter: the rate is shared out among as many as make up this length.
STREAM_BATCHES = 100
#: Chance of a watch in a stream of the calibration. It costs time and nothing else, so it needs no
#: rarity; it is fixed, because the alarm's statistics are summed beyond the levels of the watch;
#: and it leaves streams enough in which there is a sum.
WATCH_CHANCE = 0.2
#: Shapes beyond these are noise of a fit to some dozens of values: tails at least exponential, and
#: with a variance.
_SHAPES = (0.0, 0.25)


def fit_tail(values: Sequence[float]) -> dict[str, float]:
    """The upper tail of a sample: a generalised Pareto law above its median.

    Args:
        values: one number a stream, the largest that its statistic became.

    Returns:
        ``start``, the median; ``share`` of values above it; ``scale`` and ``shape`` of their excess
        over it. So the value x is exceeded with probability share · (1 + shape · (x − start) /
        scale)^(−1 / shape).
    """
    ordered = sorted(values)
    start = ordered[len(ordered) // 2]
    excess = [value - start for value in ordered if value > start]
    if not excess:
        return {"start": start, "share": 0.0, "scale": 0.0, "shape": 0.0}
    mean = sum(excess) / len(excess)
    variance = sum((value - mean) ** 2 for value in excess) / max(len(excess) - 1, 1)
    shape = (1 - mean**2 / variance) / 2 if variance > 0 else _SHAPES[0]
    shape = min(max(shape, _SHAPES[0]), _SHAPES[1])
    return {
        "start": start,
        "share": len(excess) / len(ordered),
        "scale": mean * (1 - shape),
        "shape": shape,
    }


def tail_value(tail: Mapping[str, float], chance: float) -> float:
    """The value that the next stream exceeds with this probability; the tail's start where it is
    above the tail's share.
    """
    ratio = tail["share"] / chance
    if ratio <= 1:
        return tail["start"]
    shape = tail["shape"]
    return tail["start"] + tail["scale"] * (
        (ratio**shape - 1) / shape if shape > 0 else math.log(ratio)
    )
