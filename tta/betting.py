"""Which of two models is better, told by labels that come in one by one: a test that may be looked
at after each of them.

The question is the mean over the classes of each class's mean difference δ_c: the difference of two
balanced accuracies. Labels are taken as they come, and a *block* is formed whenever there are
images of every class: its value D is the mean over the classes of the mean difference of one to
four images of that class. Which images a block takes depends on the labels alone. So D has the mean
(δ_1 + … + δ_C) / C whatever the shares of the classes are, lies in [-1, 1], and a bet λ >= 0 that
depends on earlier blocks only makes wealth ∏ (1 + λ D) a nonnegative supermartingale where that
mean is <= 0. By Ville's inequality it ever exceeds 1/α with probability <= α: the level holds at
every look, also where labels are missing, as long as whether an image gets one depends on its class
and not on which model is right (Waudby-Smith & Ramdas, JRSS B 2024, sec. 4).

Weights by the classes' estimated shares would use every label at once, but their mean is not the
balanced one while the estimate is off, and the level would not hold. With blocks the rarest class
sets the pace, as it does for the error of any balanced accuracy.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

#: Labels of a class from which on it is in the blocks. A class that joins changes the question, so
#: the test begins anew, with the labels that are in no block yet.
JOINS = 8
#: Labels of the only class that there are labels of, from which on the question is about that class
#: alone: a stream of one class for good would otherwise never be told about.
ALONE = 32
#: Images of a class in a block, at most: four leave the rare class 4/5 of a block's variance.
_MOST = 4
#: Images of a class that wait for a block, at most; later ones are left out.
_WAITING = 1000
#: Blocks that the bet remembers: what adapts may become better, or worse, after a while.
_MEMORY = 100.0
#: What the bet expects before the first block: a difference of 5 points, a mean square of .2 (two
#: models that differ on a third of the images), with the weight of 10 blocks.
_PRIOR, _MEAN, _SQUARE = 10.0, 0.05, 0.2
#: The largest bet: a block that says -1 leaves a fifth of the wealth.
_LARGEST = 0.8


class Bet(NamedTuple):
    """A bet that numbers from [-1, 1] are above 0 on average, and what it came to.

    Attributes:
        log_wealth: won so far, from a wealth of 1.
        weight: of what is remembered, in numbers.
        total: its sum.
        squares: its sum of squares.
    """

    log_wealth: float = 0.0
    weight: float = _PRIOR
    total: float = _PRIOR * _MEAN
    squares: float = _PRIOR * _SQUARE


def settled(values: Iterable[float], bet: Bet) -> Bet:
    """Settle the bet on each value, one after the other.

    The bet is λ = μ̂/m̂ of the running mean and mean square before the value, within [0, .8]: what
    nearly maximises the growth of wealth (Waudby-Smith & Ramdas 2024, sec. B.3), with a memory.

    >>> settled([0.0], Bet()).log_wealth
    0.0

    Args:
        values: in [-1, 1].
        bet: how things stand.
    """
    log_wealth, weight, total, squares = bet
    for value in values:
        log_wealth += math.log1p(min(max(total / squares, 0.0), _LARGEST) * value)
        keep = 1 - 1 / _MEMORY
        weight, total = keep * weight + 1, keep * total + value
        squares = keep * squares + value**2
    return Bet(log_wealth, weight, total, squares)


class PairedTest:
    """Whether one model is better than another, or worse, balanced by class.

    Wealth above ln(1/α), in ``better`` or ``worse``, tells so at the level α, whenever one looks.

    Args:
        classes: C.

    Example:
        >>> test = PairedTest(2)
        >>> for label in [0, 1] * 40:
        ...     test.add(label, 1.0 if label else 0.0)
        >>> test.better.log_wealth > math.log(1 / 0.05) > test.worse.log_wealth
        True
    """

    def __init__(self, classes: int) -> None:
        self.better, self.worse = Bet(), Bet()
        self.counts = [0] * classes
        self._waiting: list[list[float]] = [[] for _ in range(classes)]
        self._members: list[int] = []

    @property
    def labels(self) -> int:
        """How many were added."""
        return sum(self.counts)

    def add(self, label: int, difference: float) -> None:
        """Take in an image.

        Args:
            label: its class.
            difference: how much more right the one model is than the other, in [-1, 1]; of two
                predictions -1, 0 or 1.
        """
        self.counts[label] += 1
        if len(self._waiting[label]) < _WAITING:
            self._waiting[label].append(float(difference))
        members = [c for c, count in enumerate(self.counts) if count >= JOINS]
        if members != self._members:
            self._members, self.better, self.worse = members, Bet(), Bet()
        only = len(members) == 1 and ALONE <= self.labels == self.counts[members[0]]
        if len(members) > 1 or only:
            values = self._blocks()
            self.better = settled(values, self.better)
            self.worse = settled([-value for value in values], self.worse)

    def _blocks(self) -> list[float]:
        """The values of all blocks that can be formed; their images wait no longer."""
        fewest = min(self.counts[c] for c in self._members)
        takes = {c: min(_MOST, round(self.counts[c] / fewest)) for c in self._members}
        values = []
        while all(len(self._waiting[c]) >= take for c, take in takes.items()):
            means = [sum(self._waiting[c][:take]) / take for c, take in takes.items()]
            values.append(sum(means) / len(means))
            for c, take in takes.items():
                del self._waiting[c][:take]
        return values

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next label's effect depends on, in plain numbers."""
        return {
            "better": list(self.better),
            "worse": list(self.worse),
            "counts": list(self.counts),
            "waiting": [list(values) for values in self._waiting],
            "members": list(self._members),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.better, self.worse = Bet(*state_dict["better"]), Bet(*state_dict["worse"])
        self.counts = list(state_dict["counts"])
        self._waiting = [list(values) for values in state_dict["waiting"]]
        self._members = list(state_dict["members"])
