"""Paired tests of several models on the same streams, as Demšar (JMLR 7, 2006) recommends them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Numbers = npt.NDArray[np.float64]

#: Pairs from which on a signed-rank test is made: of 5, no outcome is below 5 %.
FEWEST = 6
#: The level of tests and of the critical difference.
LEVEL = 0.05
#: Decimals to which differences are told apart: what differs by rounding alone is a tie.
_DECIMALS = 9


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p that a signed-rank test of so many pairs can give.

    >>> smallest_p(5), smallest_p(6)
    (0.0625, 0.03125)
    """
    return float(2.0 ** (1 - pairs))


def signed_rank(differences: Sequence[float] | Numbers) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros count half to each side.

    It is exact up to 50 pairs without ties and 13 with, and approximate beyond.

    >>> signed_rank([1, 2, 3, 4, 5, 6])
    0.03125

    Args:
        differences: (N,) of pairs.
    """
    values = np.round(np.asarray(differences, dtype=np.float64), _DECIMALS)
    if not values.any():
        return 1.0
    return float(stats.wilcoxon(values, zero_method="zsplit").pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of the p of several tests, in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def mean_ranks(scores: Numbers, lower: bool = False) -> Numbers:
    """Mean rank (K,) of each model over blocks; 1 is best, and ties share their ranks.

    Args:
        scores: (N, K), a row a block.
        lower: whether lower scores are better.
    """
    better = np.round(scores if lower else -scores, _DECIMALS)
    ranks: Numbers = stats.rankdata(better, axis=1).mean(0)
    return ranks


def friedman(scores: Numbers) -> tuple[float, float]:
    """Friedman's chi-squared, corrected for ties, and its p: whether any of K models differs.

    Args:
        scores: (N, K), of three models or more.
    """
    values = np.round(scores, _DECIMALS)
    if (values == values[:, :1]).all():
        return 0.0, 1.0
    found = stats.friedmanchisquare(*values.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(models: int, blocks: int, level: float = LEVEL) -> float:
    """Difference of mean ranks from which on two models differ by Nemenyi's test.

    >>> round(critical_difference(models=4, blocks=14), 2)
    1.25

    Args:
        models: that were ranked.
        blocks: over which.
        level: of the test, over all pairs of models together.
    """
    quantile = stats.studentized_range.ppf(1 - level, models, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(models * (models + 1) / (6 * blocks)))


def alike(ranks: Sequence[float] | Numbers, difference: float) -> list[tuple[int, int]]:
    """The longest stretches of models, in order of their ranks, that do not differ.

    >>> alike([1.0, 1.5, 2.2, 3.9], difference=1.0)
    [(0, 1), (1, 2)]

    Args:
        ranks: (K,) in ascending order.
        difference: the critical one.

    Returns:
        First and last model of each stretch of two or more.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
