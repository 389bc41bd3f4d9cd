"""The models that could serve a batch, and how much each is trusted: the un-updated network under
the source's statistics, each batch's own, and corrected ones.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from holdfast.callbacks.guard.evidence import (
    Reference,
    Seen,
    divergence,
    information,
    nothing_seen,
    outside,
    seen_with,
    shares,
)
from holdfast.callbacks.guard.modes import Trigger
from holdfast.callbacks.settings import Tuned
from holdfast.tta.distributed import total_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.tasks import Task

#: What methods are published with: batch statistics, or whatever a method has for itself.
HOMES = ("batch", "control")
#: Divergence beyond which all are equally far, without a calibration: classes ten nats a feature
#: away are nowhere near the source's, whatever the network.
_FAR = 10.0
#: Who has less than this part of what is left beside one that may serve alone does not serve.
_HARDLY = 0.25
#: Share of trust from which on somebody leads.
_HALF = 0.5
#: Images of a look: trust grows by what was seen, so that batches of any size tell alike.
_LOOK = 64


@runtime_checkable
class Choosable(Protocol):
    """A module that can predict and learn under several normalisation statistics."""

    def candidates(
        self, batch: Any, names: Sequence[str] | None = None, partly: Collection[str] = ()
    ) -> Mapping[str, Prediction]:
        """What the un-updated network says under each choice of statistics, by name; all, or those
        named.

        Those in ``partly`` may speak of a part of the batch only.
        """

    def use(self, name: str) -> None:
        """Predict and learn under this choice from now on."""


class Found(NamedTuple):
    """What is known of a candidate.

    Attributes:
        divergence: from the source's classes, nats per feature.
        information: of its predictions, from 0 to 1.
        impossible: share of its answers that must be wrong by the bounds.
    """

    divergence: float
    information: float = 0.0
    impossible: float = 0.0


class Belief(NamedTuple):
    """How far candidates are to be believed, by the checkpoint's own streams.

    Attributes:
        offsets: by name, what a look adds to the logarithm of a share.
        far: divergence beyond which all are equally far.
    """

    offsets: Mapping[str, float]
    far: float = _FAR


def vote(name: str, found: Found, belief: Belief, tuned: Tuned) -> float:
    """What a look adds to the logarithm of a candidate's share (``callbacks.guard.evidence``)."""
    far = found.divergence if found.divergence < belief.far else belief.far  # also where it is NaN
    near = -math.log(max(far, 0.0) + tuned.floor)
    evidence = near + tuned.information * found.information
    offset = belief.offsets.get(name, 0.0)
    return offset + tuned.sharpness * evidence - tuned.impossible * found.impossible


class Experts:
    """Running evidence for each, and what follows from it.

    Args:
        num_classes: C.
        tuned: constants.
        source: the source's classes; None: nothing speaks for or against any, and the one that a
            method is published with leads.
        belief: how far candidates are to be believed, as calibrated.
        bounds: (2, C) least and largest true share of each class; None: nothing is known.
        task: what predictions are of; None: images with one label.

    Attributes:
        found: what is known of each, by name.
        looks: how many there were, in batches of ``_LOOK`` images.
        working: the statistics under which the module adapts.
        pinned: who serves whatever the evidence says, as labels tell: a candidate, or ``adapted``;
            None: nobody.
        barred: who does not, as labels tell.
    """

    def __init__(
        self,
        num_classes: int,
        tuned: Tuned,
        source: Reference | None = None,
        belief: Belief | None = None,
        bounds: Tensor | None = None,
        task: Task | None = None,
    ) -> None:
        self.num_classes, self.tuned, self.source, self.task = num_classes, tuned, source, task
        self.belief, self.bounds = belief or Belief({}), bounds
        self.found: dict[str, Found] = {}
        self.looks = 0.0
        self.working: str | None = None
        self.pinned: str | None = None
        self.barred: frozenset[str] = frozenset()
        self._seen: Seen | None = None
        #: (K, 3) images that each was heard of, its mean doubt, and the share that it finds; None:
        #: nobody doubts itself.
        self._doubts: Tensor | None = None

    def hear(self, said: Mapping[str, Prediction]) -> Tensor:
        """Take in what each says of a batch.

        Args:
            said: predictions by name.

        Returns:
            (1 + 3·K,) images of all processes, then ``Found`` of each, on the device, for
            ``weigh``.
        """
        if self.working is None:
            self.working = next((name for name in HOMES if name in said), next(iter(said)))
        told, unit = said, 1
        if self.task is not None:
            said, unit = {name: self.task.seen(one) for name, one in told.items()}, self.task.unit
        logits, features = self._rows(said)
        if self._seen is None:
            self._seen = nothing_seen(self.num_classes, features.shape[-1], features.device)
        self._seen = seen = seen_with(self._seen, logits, features, self.tuned.memory)
        images = total_of_all(logits.new_tensor([logits.shape[1] / unit]))
        nothing = torch.zeros_like(seen.entropy)
        far = nothing if self.source is None else divergence(seen, self.source, self.tuned.prior)
        far = self._doubted(told, far)
        wrong = nothing
        if self.bounds is not None:
            wrong = outside(seen, *self.bounds.to(seen.counts))
        numbers = torch.stack([far, information(seen), wrong], 1)
        return torch.cat([images, numbers.flatten()])

    def _doubted(self, said: Mapping[str, Prediction], far: Tensor) -> Tensor:
        """In place of divergences (K,) the mean doubt of those that doubt themselves: of pixels it
        tells who is right, which divergence does not. Of trivial answers, which a flip does not
        change, the task says how far they are doubted.
        """
        if self.task is None or all(one.doubt is None for one in said.values()):
            return far
        past = far.new_zeros(0, 3) if self._doubts is None else self._doubts
        doubts = torch.cat([past, far.new_zeros(len(far) - len(past), 3)])
        for row, name in enumerate(self.found):
            if name in said and said[name].doubt is not None:
                doubts[row] = self._with_doubts(doubts[row], said[name])
        self._doubts = doubts
        _, doubt, found = doubts.unbind(1)
        if self.source is None or self.source.shares is None:
            return doubt
        return self.task.weighed(doubt, found, self.source.shares)

    def _with_doubts(self, past: Tensor, one: Prediction) -> Tensor:
        """(3,) images, their mean doubt and share found, with those of a batch of all processes."""
        assert self.task is not None
        assert one.doubt is not None
        doubt, found = one.doubt, self.task.found(one)
        if self.source is not None and self.source.shares is not None:
            doubt = self.task.image_doubt(doubt, found, self.source.shares)
        each = torch.stack([torch.ones_like(doubt), doubt, found])
        new = total_of_all(each.float().sum(1))
        kept = past[0].clamp(max=self.tuned.memory / self.task.worth)
        count = kept + new[0]
        return torch.cat([count[None], (kept * past[1:] + new[1:]) / count.clamp(min=1)])

    def _rows(self, said: Mapping[str, Prediction]) -> tuple[Tensor, Tensor]:
        """Logits (K, N, C) and features (K, N, D) of all that ever spoke, in the order of
        ``found``; what one did not speak of is NaN, and so left out.
        """
        new = [name for name in said if name not in self.found]
        if self._seen is not None and new:
            blank = [value.new_zeros(len(new), *value.shape[1:]) for value in self._seen]
            self._seen = Seen(*map(torch.cat, zip(self._seen, blank, strict=True)))
        self.found |= dict.fromkeys(new, Found(0.0))
        someone = next(iter(said.values()))
        silent = Prediction(someone.logits[:0], someone.features[:0])
        each = [said.get(name, silent) for name in self.found]
        logits = pad_sequence([one.logits.float() for one in each], True, math.nan)
        return logits, pad_sequence([one.features for one in each], True, math.nan)

    def weigh(self, numbers: Sequence[float]) -> None:
        """Take in the numbers of ``hear``, read back to the host."""
        images, *numbers = numbers
        self.looks += images / (_LOOK if self.task is None else self.task.look)
        each = zip(self.found, numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        self.found = {name: Found(*values) for name, *values in each}

    @property
    def votes(self) -> dict[str, float]:
        """What a look adds to the logarithm of each one's share."""
        return {name: vote(name, one, self.belief, self.tuned) for name, one in self.found.items()}

    @property
    def shares(self) -> dict[str, float]:
        """How much each is trusted, before little shares are dropped; empty before the first
        look.
        """
        if not self.found:
            return {}
        if self.source is None:
            return {name: float(name == self.working) for name in self.found}
        votes = {name: vote for name, vote in self.votes.items() if name not in self.barred}
        return shares(votes or self.votes, min(self.looks, self.tuned.looks))

    @property
    def trusted(self) -> dict[str, float]:
        """Shares of those that serve, which sum to 1: one alone where it has most of the trust, or
        half of it once trust has stopped to grow, and nobody with hardly any.
        """
        known = self.shares
        if not known:
            return {}
        if self.pinned is not None:
            return {str(self.working) if self.pinned == "adapted" else self.pinned: 1.0}
        best = max(known, key=known.__getitem__)
        enough = self.tuned.alone if self.looks < self.tuned.looks else _HALF
        if known[best] >= enough:
            return {best: 1.0}
        least = (1 - self.tuned.alone) * _HARDLY
        kept = {name: share for name, share in known.items() if share >= least}
        total = sum(kept.values())
        return {name: share / total for name, share in kept.items()}

    def leads(self) -> Trigger:
        """Who leads: whoever has at least half of the trust, or whom labels name."""
        known = self.shares
        if self.pinned is not None or "adapted" in self.barred:
            return "adapted leads" if self.pinned == "adapted" else "source leads"
        if len(known) < 2:
            return "adapted leads"
        best = max(known, key=known.__getitem__)
        if known[best] < _HALF:
            return "none leads"
        return "source leads" if best == "source" else "adapted leads"

    def best_to_adapt(self) -> str | None:
        """Of the statistics that a model can adapt under, those with most trust."""
        known = {name: share for name, share in self.shares.items() if name != "source"}
        return max(known, key=known.__getitem__) if known else self.working

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next shares depend on, and nothing of the settings."""
        return {
            "found": {name: list(one) for name, one in self.found.items()},
            "looks": self.looks,
            "working": self.working,
            "pinned": self.pinned,
            "barred": sorted(self.barred),
            "seen": self._seen and list(self._seen),
            "doubts": self._doubts,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.found = {name: Found(*values) for name, values in state_dict["found"].items()}
        self.looks, self.working = state_dict["looks"], state_dict["working"]
        self.pinned, self.barred = state_dict["pinned"], frozenset(state_dict["barred"])
        self._seen = state_dict["seen"] and Seen(*state_dict["seen"])
        self._doubts = state_dict["doubts"]
