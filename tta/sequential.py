"""Tests that may be looked at after every sample: a bet on a mean, and a bound on one."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Wager(NamedTuple):
    """A bet that numbers from [0, 1] do not average ½, and what it came to.

    Attributes:
        bet: on the next number; above 0 where it is expected above ½.
        log_wealth: won so far, from a wealth of 1.
        squares: sum of the squared gradients that the bet has followed.
    """

    bet: float = 0.0
    log_wealth: float = 0.0
    squares: float = 0.0


def wagered(
    values: Iterable[float], wager: Wager, gamma: float, clip: float
) -> tuple[list[float], Wager]:
    """Settle the bet on each value, one after the other (Bar et al., NeurIPS 2024).

    Wealth grows by the factor 1 + ε(u − ½); the bet ε follows the gradient of its logarithm, in
    steps that are free of scale.

    Args:
        values: u, in [0, 1].
        wager: how things stand.
        gamma: step size.
        clip: largest bet, in (0, 2).

    Returns:
        The bet that was made on each value, and how things stand then.
    """
    bet, log_wealth, squares = wager
    bets = []
    for value in values:
        bets.append(bet)
        factor = 1 + bet * (value - 0.5)
        log_wealth += math.log(factor)
        gradient = (value - 0.5) / factor
        squares += gradient**2
        if squares > 0:
            bet += gamma * gradient / math.sqrt(squares)
        bet = min(max(bet, -clip), clip)
    return bets, Wager(bet, log_wealth, squares)


class MeanBound(NamedTuple):
    """What a lower confidence bound on a mean of numbers from [0, 1] depends on.

    Attributes:
        seen: how many numbers, n.
        total: their sum.
        squares: sum of (x − μ̂)², each μ̂ the estimate that includes x.
        weights: sum of the weights λ.
        weighted: sum of λ x.
        penalty: sum of (x − μ̂)² (−ln(1 − λ) − λ), each μ̂ the estimate before x.
    """

    seen: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    penalty: float = 0.0

    @property
    def mean(self) -> float:
        """Of the numbers; 0 where there are none."""
        return self.total / max(self.seen, 1.0)

    def lower(self, alpha: float) -> float:
        """The bound: with probability 1 − α, the mean is above it at every look; −∞ where nothing
        was seen.
        """
        return (
            (self.weighted - math.log(1 / alpha) - self.penalty) / self.weights
            if self.seen
            else -math.inf
        )


def bounded(values: Iterable[float], bound: MeanBound, alpha: float) -> MeanBound:
    """Take numbers into the bound: empirical Bernstein, predictable plug-in (Waudby-Smith & Ramdas,
    JRSS B 2024, th. 2).

    The weight of the n-th number is λ = √(2 ln(1/α) / (σ̂² n ln(1 + n))), at most ½, of the
    variance σ̂² before it; mean and variance are estimated as if there had been a ½ and a variance
    of ¼ at the start.

    Args:
        values: in [0, 1]; True counts as 1.
        bound: how things stand.
        alpha: probability that the bound is ever wrong.
    """
    seen, total, squares, weights, weighted, penalty = bound
    for value in values:
        mean = (0.5 + total) / (seen + 1)
        variance = (0.25 + squares) / (seen + 1)
        seen, total = seen + 1, total + value
        weight = min(
            math.sqrt(2 * math.log(1 / alpha) / (variance * seen * math.log(1 + seen))), 0.5
        )
        weights += weight
        weighted += weight * value
        penalty += (value - mean) ** 2 * (-math.log(1 - weight) - weight)
        squares += (value - (0.5 + total) / (seen + 1)) ** 2
    return MeanBound(seen, total, squares, weights, weighted, penalty)


def interpolated(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear function through (knots, values), constant outside them.

    Args:
        x: (N,) where to evaluate.
        knots: (K,) ascending.
        values: (K,).
    """
    right = torch.searchsorted(knots.contiguous(), x.contiguous()).clamp(1, len(knots) - 1)
    left = right - 1
    width = (knots[right] - knots[left]).clamp(min=torch.finfo(knots.dtype).tiny)
    share = ((x - knots[left]) / width).clamp(0, 1)
    return values[left] + share * (values[right] - values[left])
