"""The models that could serve a batch, and how much each is trusted: the un-updated network under
the source's statistics, each batch's own, and corrected ones.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from callbacks.guard.evidence import (
    Reference,
    Seen,
    divergence,
    nothing_seen,
    outside,
    seen_with,
    shares,
)
from callbacks.guard.modes import Trigger
from callbacks.settings import Tuned
from tta.distributed import total_of_all
from tta.methods import Prediction

#: What methods are published with: batch statistics, or whatever a method has for itself.
HOMES = ("batch", "control")
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


class Experts:
    """Running evidence for each, and what follows from it.

    Args:
        num_classes: C.
        tuned: constants.
        source: the source's classes; None: nothing speaks for or against any, and the one that a
            method is published with leads.
        offsets: what a look adds to the logarithm of a share, as calibrated.
        bounds: (2, C) least and largest true share of each class; None: nothing is known.

    Attributes:
        divergences: of each, by name.
        impossible: share of each one's answers that must be wrong by the bounds.
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
        offsets: Mapping[str, float] | None = None,
        bounds: Tensor | None = None,
    ) -> None:
        self.num_classes, self.tuned, self.source = num_classes, tuned, source
        self.offsets, self.bounds = dict(offsets or {}), bounds
        self.divergences: dict[str, float] = {}
        self.impossible: dict[str, float] = {}
        self.looks = 0.0
        self.working: str | None = None
        self.pinned: str | None = None
        self.barred: frozenset[str] = frozenset()
        self._seen: dict[str, Seen] = {}

    def hear(self, said: Mapping[str, Prediction]) -> Tensor:
        """Take in what each says of a batch.

        Args:
            said: predictions by name.

        Returns:
            (1 + 2·K,) images of all processes, then divergence and impossible share of each, on the
            device, for ``weigh``.
        """
        whole = max(said.values(), key=lambda one: len(one.logits)).logits
        numbers = [total_of_all(whole.new_tensor(len(whole), dtype=torch.float32))]
        for name, (logits, features) in said.items():
            past = self._seen.get(name)
            if past is None:
                past = nothing_seen(self.num_classes, features.shape[1], features.device)
            self._seen[name] = seen = seen_with(past, logits, features, self.tuned.memory)
            numbers += self._numbers(seen)
        return torch.stack(numbers)

    def _numbers(self, seen: Seen) -> list[Tensor]:
        nothing = seen.counts.new_zeros(())
        far = nothing if self.source is None else divergence(seen, self.source, self.tuned.prior)
        if self.bounds is None:
            return [far, nothing]
        low, high = self.bounds.to(seen.counts)
        return [far, outside(seen, low, high)]

    def weigh(self, names: Sequence[str], numbers: Sequence[float]) -> None:
        """Take in the numbers of ``hear``, read back to the host."""
        images, *numbers = numbers
        self.looks += images / _LOOK
        self.divergences.update(zip(names, numbers[::2], strict=True))
        self.impossible.update(zip(names, numbers[1::2], strict=True))
        if self.working is None:
            self.working = next((name for name in HOMES if name in names), names[0])

    @property
    def votes(self) -> dict[str, float]:
        """What a look adds to the logarithm of each one's share."""
        tuned = self.tuned
        return {
            name: self.offsets.get(name, 0.0)
            - tuned.sharpness * math.log(max(self.divergences[name], 0.0) + tuned.floor)
            - tuned.impossible * self.impossible[name]
            for name in self.divergences
        }

    @property
    def shares(self) -> dict[str, float]:
        """How much each is trusted, before little shares are dropped; empty before the first
        look.
        """
        if not self.divergences:
            return {}
        if self.source is None:
            return {name: float(name == self.working) for name in self.divergences}
        votes = {name: vote for name, vote in self.votes.items() if name not in self.barred}
        return shares(votes or self.votes, min(self.looks, self.tuned.looks))

    @property
    def trusted(self) -> dict[str, float]:
        """Shares of those that serve, which sum to 1: one alone where it has most of the trust, and
        nobody with hardly any.
        """
        known = self.shares
        if not known:
            return {}
        if self.pinned is not None:
            return {str(self.working) if self.pinned == "adapted" else self.pinned: 1.0}
        best = max(known, key=known.__getitem__)
        if known[best] >= self.tuned.alone:
            return {best: 1.0}
        kept = {name: share for name, share in known.items() if share >= self.tuned.least}
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
        if known[best] < 0.5:
            return "none leads"
        return "source leads" if best == "source" else "adapted leads"

    def best_to_adapt(self) -> str | None:
        """Of the statistics that a model can adapt under, those with most trust."""
        known = {name: share for name, share in self.shares.items() if name != "source"}
        return max(known, key=known.__getitem__) if known else self.working

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next shares depend on, and nothing of the settings."""
        return {
            "divergences": dict(self.divergences),
            "impossible": dict(self.impossible),
            "looks": self.looks,
            "working": self.working,
            "pinned": self.pinned,
            "barred": sorted(self.barred),
            "seen": {name: list(seen) for name, seen in self._seen.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.divergences = dict(state_dict["divergences"])
        self.impossible = dict(state_dict["impossible"])
        self.looks, self.working = state_dict["looks"], state_dict["working"]
        self.pinned, self.barred = state_dict["pinned"], frozenset(state_dict["barred"])
        self._seen = {name: Seen(*values) for name, values in state_dict["seen"].items()}
