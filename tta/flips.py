"""Which way does adaptation turn predictions? A bet that it leans, and one that it evens out too
much; pure functions.

Where adapted model and control disagree on an image, the flip goes to a class that the stream has
shown more often so far, or less often. If adaptation leaned neither way, a batch's vote (the share
of its flips that go to the commoner class) would average ½. Two bets are kept on the votes: that
they lie above (predictions lean to some classes, as under entropy minimisation), and that they lie
below (over-balancing, as under a uniform prior on a skewed stream). Wealth of 1/α is an alarm that
is wrong with probability α at most, at however many looks (Ville, 1939). Useful corrections break
the null as well, so R has to confirm it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tta.sequential import Wager, wagered

#: Step of the bets, and the largest bet (Bar et al., NeurIPS 2024, use the same construction for
#: entropies).
_GAMMA, _CLIP = 0.5, 1.0
#: Flips that a batch needs to have a vote.
_FEWEST = 3


class FlipTest(NamedTuple):
    """How the two bets stand: that flips lean to the commoner class, and that they lean away from
    it.
    """

    lean: Wager = Wager()
    mirror: Wager = Wager()

    @property
    def evidence(self) -> tuple[float, float]:
        """Logarithm of the wealth of each; above ln(1/α) is an alarm at level α."""
        return self.lean.log_wealth, self.mirror.log_wealth


def flip_votes(adapted: Tensor, control: Tensor, shares: Tensor) -> Tensor:
    """How often control and adapted model disagree, and how often in favour of the commoner class.

    Args:
        adapted: (N,) classes that the adapted model predicts.
        control: (N,) classes that the control predicts.
        shares: (C,) how often each class has been predicted so far, in any unit.

    Returns:
        (2,) number of flips, and of those that go to the class with the larger share; equal shares
        count half.
    """
    flipped = adapted != control
    gained = shares[adapted] - shares[control]
    toward = (gained > 0).float() + 0.5 * (gained == 0).float()
    return torch.stack([flipped.sum().float(), (toward * flipped).sum()])


def flip_test(past: FlipTest, flips: float, toward: float) -> FlipTest:
    """The bets after another batch; one with hardly a flip has no vote.

    Args:
        past: how the bets stood.
        flips: number of flips, from ``flip_votes``.
        toward: those to the commoner class.
    """
    if flips < _FEWEST or not math.isfinite(toward):
        return past
    vote = toward / flips
    # Each bet may only be on its own side: a bettor who expects leaning does not bet against it.
    return FlipTest(_one_sided(past.lean, vote), _one_sided(past.mirror, 1 - vote))


def _one_sided(wager: Wager, vote: float) -> Wager:
    after = wagered([vote], wager, _GAMMA, _CLIP)[1]
    return after._replace(bet=max(after.bet, 0.0))
