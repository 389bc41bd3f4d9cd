"""The models that could serve a batch, and how much each is trusted: the un-updated network under
the source's statistics, each batch's own, and corrected ones.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.callbacks.guard.evidence import Reference, Seen, shares
from holdfast.callbacks.guard.heard import Asked, Heard
from holdfast.callbacks.settings import Tuned
from holdfast.tta.distributed import place
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Answering, Candidate, Lead
from holdfast.tta.tasks import Task

#: What methods are published with: batch statistics, or whatever a method has for itself.
HOMES: tuple[Candidate, ...] = ("batch", "control")
#: Divergence beyond which all are equally far: a number, where it is none.
_FAR = 1e6
#: By what a site says of the order of arrival, what it adds to the logarithm of batch statistics'
#: share at a look. They are sound where classes come mixed, and never where one comes for a while,
#: since a batch of one class says nothing of the shift. Chosen on recorded streams:
#: docs/evidence/guard.md, "Where something is told".
_OF_ORDER: Mapping[str, float] = {"unknown": 0.0, "mixed": 0.7, "correlated": -2.0}
#: What exact knowledge of the classes' shares adds to the logarithm of corrected statistics' share
#: at a look, and less the less is known: these have nothing left to guess then. Chosen on recorded
#: streams: docs/evidence/guard.md, "Where something is told".
_OF_SHARES = 0.5
#: Who has less than this part of what is left beside one that may serve alone does not serve.
_HARDLY = 0.25
#: Where a model doubts itself: power of a ratio of doubts that trust grows by at a look, and what
#: information adds. See docs/evidence/segmentation.md, "Whom the guard trusts".
_OF_DOUBTS, _TOLD = 2.0, 0.5
#: Share of trust from which on somebody leads.
_HALF = 0.5
#: Images of a look: trust grows by what was seen, so that batches of any size tell alike.
_LOOK = 64


@runtime_checkable
class Choosable(Protocol):
    """A module that can predict and learn under several normalisation statistics."""

    def candidates(
        self,
        batch: Any,
        names: Sequence[Candidate] | None = None,
        partly: Collection[Candidate] = (),
    ) -> Mapping[Candidate, Prediction]:
        """What the un-updated network says under each choice of statistics, by name; all, or those
        named.

        Those in ``partly`` may speak of a part of the batch only.
        """

    def use(self, name: Candidate) -> None:
        """Predict and learn under this choice from now on."""


@runtime_checkable
class HeedsShares(Protocol):
    """A module whose statistics heed what is known of the classes of a stream."""

    def expect_shares(self, bounds: Tensor | None) -> None:
        """Know least and largest true share (2, C) of each class from now on; None: nothing."""


class Found(NamedTuple):
    """What is known of a candidate.

    Attributes:
        divergence: from the source's classes, nats per feature.
        information: of its predictions, from 0 to 1.
        impossible: share of its answers that must be wrong by the bounds.
        doubted: whether the divergence is a doubt, which knows constant answers by itself.
    """

    divergence: float
    information: float = 0.0
    impossible: float = 0.0
    doubted: bool = False


def hint_of(order: str) -> dict[Candidate, float]:
    """What a look adds to the logarithm of each candidate's share, whatever it saw.

    Args:
        order: of arrival: unknown, mixed or correlated.
    """
    return dict.fromkeys(HOMES, _OF_ORDER[order])


def known_of(bounds: Tensor | None) -> float:
    """How much is known of the shares of the classes, from 0 to 1: what two mixes that they may be
    have in common at least.

    Args:
        bounds: (2, C) least and largest true share of each class; None: nothing.
    """
    if bounds is None:
        return 0.0
    low, high = bounds.sum(1).tolist()
    return min(1.0, max(0.0, low, 2 - high))


def vote(found: Found, tuned: Tuned, hint: float = 0.0) -> float:
    """What a look adds to the logarithm of a candidate's share (``callbacks.guard.evidence``)."""
    far = found.divergence if found.divergence < _FAR else _FAR  # also where it is NaN
    near = -math.log(max(far, 0.0) + tuned.floor)
    if found.doubted:
        evidence = _OF_DOUBTS * near + _TOLD * found.information
    else:
        evidence = math.log(found.information + tuned.floor) + near
    return hint + tuned.sharpness * evidence - tuned.impossible * found.impossible


class Experts:
    """Running evidence for each, and what follows from it.

    Args:
        num_classes: C.
        tuned: constants.
        source: the source's classes; None: nothing speaks for or against any, and the one that a
            method is published with leads.
        hint: by candidate, what a look adds to the logarithm of its share; None: nothing.
        bounds: (2, C) least and largest true share of each class; None: nothing is known.
        task: what predictions are of; None: images with one label.

    Attributes:
        found: what is known of each, by name.
        looks: how many there were, in batches of ``_LOOK`` images.
        working: the statistics under which the module adapts.
        pinned: who serves whatever the evidence says, as labels tell: a candidate, or ``adapted``;
            None: nobody.
        barred: who does not, as labels tell.
        told: what labels add to the logarithm of each one's share.
        bounds: (2, C) least and largest true share of each class; None: nothing is known.
        heeded: whether corrected statistics heed these.
    """

    def __init__(
        self,
        num_classes: int,
        tuned: Tuned,
        source: Reference | None = None,
        hint: Mapping[Candidate, float] | None = None,
        bounds: Tensor | None = None,
        task: Task | None = None,
    ) -> None:
        self.num_classes, self.tuned, self.source, self.task = num_classes, tuned, source, task
        self.hint, self.bounds, self.heeded = dict(hint or {}), bounds, False
        self.found: dict[Candidate, Found] = {}
        self.looks = 0.0
        self.working: Candidate | None = None
        self.pinned: Answering | None = None
        self.barred: frozenset[Answering] = frozenset()
        self.told: dict[Candidate, float] = {}
        self._seen: dict[Candidate, Seen] = {}
        #: Of those that doubt themselves: images that each was heard of, its mean doubt, and the
        #: share that it finds.
        self._doubts: dict[Candidate, NDArray[Any]] = {}

    def asks(self, said: Mapping[Candidate, Prediction]) -> dict[Candidate, Asked]:
        """What ``hear`` has to be told of a batch; at first the module works under the statistics
        that methods are published with.

        Args:
            said: predictions of this process's part of it, by name.
        """
        if self.working is None:
            self.working = next((name for name in HOMES if name in said), next(iter(said)))
        asked = {name: self._asked(one) for name, one in said.items()}
        if place()[1] == 1:
            return asked
        # Processes wait for each other at every name, so each names all.
        silent = Asked(*(None if part is None else part[:0] for part in next(iter(asked.values()))))
        names = dict.fromkeys([*self.found, *asked])
        return {name: asked.get(name, silent).of_all() for name in names}

    def _asked(self, one: Prediction) -> Asked:
        if self.task is None:
            return Asked(one.logits, one.features)
        rows = self.task.seen(one)
        if one.doubt is None:
            return Asked(rows.logits, rows.features)
        return Asked(rows.logits, rows.features, one.doubt, self.task.found(one))

    def hear(self, heard: Mapping[Candidate, Heard]) -> None:
        """Take in what each says of a batch.

        Args:
            heard: what ``asks`` asked for.
        """
        found = {name: self._found(name, one) for name, one in heard.items()}
        unit = 1 if self.task is None else self.task.unit
        self.weigh(max(len(one.logits) for one in heard.values()) / unit, found)

    def weigh(self, images: float, found: Mapping[Candidate, Found]) -> None:
        """Know this of some candidates, after a look at so many images of all processes."""
        self.looks += images / (_LOOK if self.task is None else self.task.look)
        self.found |= found

    def _found(self, name: Candidate, one: Heard) -> Found:
        """What is known of a candidate with what it says of a batch, if it says anything."""
        if not len(one.logits):
            return self.found.get(name, Found(0.0))
        if name not in self._seen:
            self._seen[name] = self._nothing(one.features.shape[1])
        seen = self._seen[name]
        seen.take(one.logits, one.features)
        doubted = self.task is not None and len(one.doubt) > 0
        far = self._doubted(name, one) if doubted else seen.divergence
        wrong = 0.0 if self.bounds is None else seen.outside(*self.bounds.numpy())
        return Found(far, seen.information, wrong, doubted)

    def _nothing(self, width: int) -> Seen:
        tuned = self.tuned
        return Seen(self.num_classes, width, tuned.memory, tuned.prior, self.source)

    def _doubted(self, name: Candidate, one: Heard) -> float:
        """In place of its divergence the mean doubt of a candidate that doubts itself: of pixels it
        tells who is right, which divergence does not. Of trivial answers, which a flip does not
        change, the task says how far they are doubted.
        """
        assert self.task is not None
        known = None if self.source is None else self.source.shares
        doubt, found = torch.from_numpy(one.doubt), torch.from_numpy(one.found)
        if known is not None:
            doubt = self.task.image_doubt(doubt, found, known)
        past = self._doubts.get(name, np.zeros(3))
        kept = min(past[0], self.tuned.memory / self.task.worth)
        count = kept + len(doubt)
        sums = np.array([float(doubt.sum()), float(found.sum())])
        mean = (kept * past[1:] + sums) / max(count, 1)
        self._doubts[name] = np.array([count, *mean])
        if known is None:
            return float(mean[0])
        doubted, share = torch.tensor(mean, dtype=torch.float32)[:, None]
        return float(self.task.weighed(doubted, share, known))

    @property
    def votes(self) -> dict[Candidate, float]:
        """What a look adds to the logarithm of each one's share."""
        hints = {name: self.hint.get(name, 0.0) for name in self.found}
        if self.heeded and "corrected" in hints:
            hints["corrected"] += _OF_SHARES * known_of(self.bounds)
        return {name: vote(one, self.tuned, hints[name]) for name, one in self.found.items()}

    @property
    def shares(self) -> dict[Candidate, float]:
        """How much each is trusted, before little shares are dropped; empty before the first
        look.
        """
        if not self.found:
            return {}
        if self.source is None:
            return {name: float(name == self.working) for name in self.found}
        votes = {name: vote for name, vote in self.votes.items() if name not in self.barred}
        return shares(votes or self.votes, min(self.looks, self.tuned.looks), self.told)

    @property
    def trusted(self) -> dict[Candidate, float]:
        """Shares of those that serve, which sum to 1: one alone where it has most of the trust, or
        half of it once trust has stopped to grow, and nobody with hardly any. Where nobody has half
        of it then, all are about as good, and the best that a model can adapt under serves.
        """
        known = self.shares
        if not known:
            return {}
        if self.pinned is not None:
            serves = self.working if self.pinned == "adapted" else self.pinned
            assert serves is not None, "there was a look"
            return {serves: 1.0}
        best = max(known, key=known.__getitem__)
        if known[best] >= (_HALF if self._grown else self.tuned.alone):
            return {best: 1.0}
        if self._grown and (usable := self.best_to_adapt()) in known:
            return {usable: 1.0}
        least = (1 - self.tuned.alone) * _HARDLY
        kept = {name: share for name, share in known.items() if share >= least}
        total = sum(kept.values())
        return {name: share / total for name, share in kept.items()}

    @property
    def _grown(self) -> bool:
        """Whether trust has stopped to grow with what is seen."""
        return self.looks >= self.tuned.looks

    def leads(self) -> Lead:
        """Who leads: whoever has at least half of the trust, or whom labels name; the adapted model
        where nobody has half of it and trust has stopped to grow.
        """
        known = self.shares
        if self.pinned is not None or "adapted" in self.barred:
            return "adapted leads" if self.pinned == "adapted" else "source leads"
        if len(known) < 2:
            return "adapted leads"
        best = max(known, key=known.__getitem__)
        if known[best] < _HALF:
            return "adapted leads" if self._grown else "none leads"
        return "source leads" if best == "source" else "adapted leads"

    def best_to_adapt(self) -> Candidate | None:
        """Of the statistics that a model can adapt under, those with most trust."""
        known = {name: share for name, share in self.shares.items() if name != "source"}
        return max(known, key=known.__getitem__, default=self.working)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next shares depend on, and nothing of the settings."""
        return {
            "found": {name: list(one) for name, one in self.found.items()},
            "looks": self.looks,
            "working": self.working,
            "pinned": self.pinned,
            "barred": sorted(self.barred),
            "told": dict(self.told),
            "seen": {name: one.state_dict() for name, one in self._seen.items()},
            "doubts": {name: one.tolist() for name, one in self._doubts.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.found = {name: Found(*values) for name, values in state_dict["found"].items()}
        self.looks, self.working = state_dict["looks"], state_dict["working"]
        self.pinned, self.barred = state_dict["pinned"], frozenset(state_dict["barred"])
        self.told = dict(state_dict.get("told", {}))  # which a version before did not keep
        self._doubts = {name: np.array(one) for name, one in state_dict["doubts"].items()}
        self._seen = {}
        for name, state in state_dict["seen"].items():
            self._seen[name] = self._nothing(state["mean"].shape[1])
            self._seen[name].load_state_dict(state)
