"""Which statistics, and so which un-updated network, suits the stream: a choice by evidence.

A stream starts under the statistics that methods are published with, each batch's own. They are
hard to beat where classes come mixed, and ruinous where they come in blocks; so others are believed
only when they lead by a handicap: little for the source's own, which nothing on the stream can
mislead, much for corrected ones, which believe their own predictions. Theirs grows with what the
source itself lags behind: batch statistics suffer from a skewed mix, the source's do not, so a
source that is far worse speaks of a shift, and of predictions that are not to be believed. Batch
statistics are suspect where the source leads them, and where the predicted mix varies between
batches more than chance would have it, under one scanner; then the handicap is small. And they are
mistrusted where they fit the images badly while the source's own fit not much worse: a shift strong
enough to mislead them mostly leaves the source far behind, so it is rather the mix that misleads
them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from tta.candidates import WARM_UP
from tta.distributed import total_of_all
from tta.evidence import Evidence, evidence_of, gathered, no_evidence
from tta.marginal import Spread, no_spread, overdispersion, predicted_counts, spread_with
from tta.methods import Prediction
from tta.separation import ClassMoments

#: What methods are published with: batch statistics, or whatever a method has for itself.
HOMES = ("batch", "control")
#: How much the predicted mix must vary between batches, in units of chance, to do so somewhat, and
#: clearly: under the published statistics, which even out each batch's predictions and so mostly
#: stay below 1/2 in a random order, and the product of that with what corrected ones show, mostly
#: about 1 and counted up to the third number. Somewhat also where the first by itself exceeds the
#: fourth.
_SOMEWHAT, _CLEARLY, _AT_MOST, _BY_ITSELF = (0.65, 3.0), (0.8, 4.0), 6.0, 1.2
#: Movement of the first layer's mean outside what mixes of classes explain (``tta.movement``) from
#: which on the scanner changes along the stream, and the predicted mix with it. At most 2.7 on 301
#: streams of one scanner, 3.4 or more at the second scanner's first batches where those were taken
#: for blocks.
_CHANGES = 3.0
#: Batches that say something about how the mix varies.
_FEWEST = 3
#: Evidence by which candidates must lead the published statistics: as they are, where those are
#: suspect, and where the mix clearly varies, in which case they are worse than their evidence says.
_HANDICAPS: Mapping[str, tuple[float, float, float]] = {
    "source": (0.05, 0.05, 0.05),
    "corrected": (0.3, 0.0, -0.2),
}
#: What the source's lag behind the published statistics adds to the handicap of corrected ones.
_LAG = 0.3
#: Evidence by which the source is far behind the best; and how many looks it then waits for.
_FAR_BEHIND, _LOOK_AT_ALL = 0.6, 4
#: Evidence by which the published statistics lead all others when those are asked less often.
_AHEAD = 0.1
#: Looks at the start in which all candidates serve together. After them, up to the batch of the
#: second number, corrected statistics serve along with the published ones: until a second block of
#: classes begins, the first may look like a balanced stream under a shift; and where that is what
#: it is, the mean of both is as good as the published ones within half a point.
_TOGETHER, _HEDGE = 3, 6
#: Evidence from which on published statistics fit so well that no other serves along. In the first
#: three batches of 144 streams at a constant skew, in class blocks or in Dirichlet order none
#: reached it (.69 at most); of 36 in random order half did.
_FITS = 0.75
#: Evidence below which published statistics fit badly, and by how much the source's may be behind
#: where it supports the doubt. Of 42 streams in random order, up to severity 3, none had both from
#: the second look on, and all lacked .15 at the least; of 126 at a constant skew, in class blocks
#: or in Dirichlet order 36 had, two thirds of those that batch statistics harmed. (At severity 5,
#: or under blur, where all statistics are near chance, random orders may have both as well: 6 of
#: 29.)
_DOUBTFUL, _SUPPORT = 0.6, 1.0
#: Batches for which all candidates serve together, at least, once published statistics are
#: mistrusted; then until a look finds no doubt. In blocks of one class that last longer than this,
#: they would be back long before the second block tells.
_MISTRUST = 8


class Reference(NamedTuple):
    """What the source's classes look like in feature space: means (C, D) and variances (C, D)."""

    mean: Tensor
    var: Tensor


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

    def scanner_change(self) -> Tensor | None:
        """How much the scanner changes between batches (``tta.movement``); None where nothing
        tells.
        """


class Choice:
    """The statistics in use, and the running evidence for all candidates.

    Args:
        num_classes: C.
        hysteresis: evidence by which other statistics must be better before they are chosen.

    Attributes:
        current: name of the candidate in use; None before the first look.
        evidence: of each candidate, by name.
        looks: how many there were.
        varying: whether the predicted mix varied between batches, at the last look: 0 no, 1
            somewhat, 2 clearly.
        scanner_changes: whether the scanner was seen to change along the stream, with which the mix
            varies as well.
        mistrusted: number of the batch from which on the published statistics are, or were,
            mistrusted; None: they never were.
        relented: whether that is over.
    """

    def __init__(self, num_classes: int, hysteresis: float) -> None:
        self.num_classes, self.hysteresis = num_classes, hysteresis
        self.current: str | None = None
        self.evidence: dict[str, float] = {}
        self.looks = 0
        self.varying = 0
        self.scanner_changes = False
        self.mistrusted: int | None = None
        self.relented = False
        self._gathered: dict[str, Evidence] = {}
        self._spreads: dict[str, Spread] = {}

    def contenders(self, batch: int) -> list[str] | None:
        """Candidates worth asking at a look; None: all.

        Where the published statistics lead and nothing speaks against them, others are asked at
        every other look, which also keeps corrected ones informed. A source far behind is asked now
        and then only.

        Args:
            batch: number of the batch.
        """
        if (
            self.looks < WARM_UP
            or self.looks % _LOOK_AT_ALL == 0
            or self.misfit
            or self.hedging(batch)
        ):
            return None
        if batch >= _HEDGE and self.undisputed and self.looks % 2:
            return [name for name in self.evidence if name == self.current]
        best = max(self.evidence.values(), default=0.0)
        far = {name for name, value in self.evidence.items() if value < best - _FAR_BEHIND} & {
            "source"
        } - {self.current}
        return [name for name in self.evidence if name not in far]

    def noticed(self, counts: Tensor) -> Tensor:
        """How much the predicted mix varies between batches, this one among them
        (``overdispersion``).

        Args:
            counts: (C,) predictions of the batch by class, of all processes. They count while batch
                statistics are in use, under which the adapted model predicts about as its twin
                would.

        Returns:
            Scalar; 0 under other statistics, or while hardly anything is known.
        """
        if self.current not in (None, "batch"):
            return counts.new_zeros(())
        self._spread("adapted", counts)
        return self._dispersed("adapted", counts)

    def weigh(
        self,
        candidates: Mapping[str, Prediction],
        reference: Reference | None = None,
        scanner_change: Tensor | None = None,
    ) -> None:
        """Take a batch into the evidence for each candidate, with one read-back to the host.

        Args:
            candidates: what each says of the batch.
            reference: of the source's features; None: evidence leaves out how far classes have
                moved.
            scanner_change: how much the scanner changes between batches; a mix that varies with it
                says nothing of blocks.
        """
        self.looks += 1
        self.hear(candidates)
        values = [
            evidence_of(self._gathered[name], *(reference or (None, None))) for name in candidates
        ]
        values += [self._dispersed(name, values[0]) for name in ("adapted", "batch", "corrected")]
        values.append(
            values[0].new_zeros(()) if scanner_change is None else scanner_change.to(values[0])
        )
        *numbers, adapted, published, corrected, change = torch.stack(values).tolist()
        self.evidence.update(zip(candidates, numbers, strict=True))
        if self.current in (
            None,
            "batch",
        ):  # a fast learner's mix varies by its own doing: its twin's must vary as well
            published = min(published, adapted)
        both = published * min(corrected, _AT_MOST)
        clearly, somewhat = (
            published > least and both > product for least, product in (_CLEARLY, _SOMEWHAT)
        )
        varying = 2 if clearly else int(somewhat or published > _BY_ITSELF)
        self.scanner_changes = change >= _CHANGES
        self.varying = 0 if self.scanner_changes else varying

    def hear(self, candidates: Mapping[str, Prediction]) -> None:
        """Take in what candidates say of a batch, whether it is looked at or they serve along; the
        next look weighs it.

        Args:
            candidates: what each says.
        """
        for name, (logits, features) in candidates.items():
            past = self._gathered.get(name) or no_evidence(
                logits.shape[1], features.shape[1], features.device
            )
            self._gathered[name] = gathered(past, logits, features)
        # Corrected statistics move at the start, and their predictions with them.
        for name in ("batch", "corrected") if self.looks > WARM_UP else ("batch",):
            if name in candidates:
                self._spread(
                    name, total_of_all(predicted_counts(candidates[name].logits, self.num_classes))
                )

    def handicapped(self, names: Mapping[str, object]) -> dict[str, float]:
        """The evidence for candidates, less what each must lead by."""
        values = handicapped(
            self.evidence, self.varying
        )  # what is known of those not asked now counts too
        return {name: values[name] for name in names}

    def at_home(self, names: Mapping[str, object]) -> bool:
        """Whether the published statistics are in use, which only an alarm leaves."""
        return self.current is not None and self.current == home_of(names)

    def lead(self, names: Mapping[str, object]) -> float | None:
        """By how much others lead the published statistics; None where there are none, or one look
        is all there was.
        """
        home = home_of(names)
        return (
            None
            if home is None or len(names) < 2 or self.looks < 2
            else lead_of(self.handicapped(names), home)
        )

    def preferred(self, names: Mapping[str, object]) -> str:
        """The candidate to use: the published statistics at first, later those with the most
        evidence.
        """
        evidence = self.handicapped(names)
        if self.current is None or self.current not in evidence:
            return home_of(names) or max(evidence, key=evidence.__getitem__)
        return choose(evidence, self.current, self.hysteresis)

    def doubt(self, names: Mapping[str, object]) -> float | None:
        """By how much published statistics fit worse, and the source's less badly, than in any
        random order; None: unknown.
        """
        known = (
            self.looks >= 2
            and self.at_home(names)
            and {"source", "corrected"} <= self.evidence.keys()
        )
        if not known or self.scanner_changes:
            return None
        own = self.evidence[str(self.current)]
        return min(_DOUBTFUL - own, self.evidence["source"] - own + _SUPPORT)

    def reconsidered(self, doubt: float | None, batch: int) -> float | None:
        """The doubt that is new: none once it was found; a mistrust that has lasted for a while
        ends where none is left.
        """
        if self.mistrusted is None:
            return doubt
        if batch >= self.mistrusted + _MISTRUST and (doubt is None or doubt <= 0):
            self.relented = True
        return None

    @property
    def undisputed(self) -> bool:
        """Whether nothing speaks against the statistics in use: there are no others, or the
        published ones fit and lead.
        """
        if len(self.evidence) < 2:
            return True
        mistrusted = self.mistrusted is not None and not self.relented
        if not self.at_home(self.evidence) or self.varying or self.misfit or mistrusted:
            return False
        lead = self.lead(self.evidence)
        return lead is not None and lead < -_AHEAD

    @property
    def fits(self) -> bool:
        """Whether the published statistics fit so well that they serve alone."""
        return self.at_home(self.evidence) and self.evidence.get(str(self.current), 0.0) >= _FITS

    @property
    def misfit(self) -> bool:
        """Whether the published statistics fit badly, for whatever reason."""
        return (
            self.at_home(self.evidence)
            and self.evidence.get(str(self.current), _DOUBTFUL) < _DOUBTFUL
        )

    def hedging(self, batch: int) -> bool:
        """Whether all candidates serve together, since the published statistics are mistrusted."""
        return (
            self.mistrusted is not None
            and batch >= self.mistrusted
            and not self.relented
            and self.at_home(self.evidence)
        )

    def alongside(self, batch: int) -> list[str]:
        """Candidates that serve along with the published statistics: where those are mistrusted,
        and while little is known.
        """
        if self.hedging(batch):
            return ["source", "corrected"]
        early = (
            self.looks >= WARM_UP
            and batch < _HEDGE
            and self.at_home(self.evidence)
            and not self.fits
        )
        return ["corrected"] if early and "corrected" in self.evidence else []

    def partly(self, batch: int) -> set[str]:
        """Candidates that may speak of a part of the batch only."""
        early = self.looks < WARM_UP and not (self.looks and self.fits)
        return set() if early else {"source", "corrected"} - set(self.alongside(batch))

    def weights(self, names: Mapping[str, object], batch: int) -> dict[str, float]:
        """Shares with which candidates serve together while little is known: the exponential of
        their evidence, normalised.

        Args:
            names: those that predicted the batch.
            batch: its number.

        Returns:
            By name, summing to 1; empty where one serves alone.
        """
        if self.fits and not self.hedging(batch):
            return {}
        evidence = {}
        along = [name for name in self.alongside(batch) if name in names]
        if (self.looks <= _TOGETHER and batch < _HEDGE) or self.hedging(batch):
            together = dict.fromkeys([*names, str(self.current)])
            evidence = {name: self.evidence[name] for name in together if name in self.evidence}
        elif along:
            evidence = self.handicapped(dict.fromkeys([str(self.current), *along]))
        if len(evidence) < 2:
            return {}
        return dict(
            zip(evidence, torch.tensor([*evidence.values()]).softmax(0).tolist(), strict=True)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next choice depends on, and nothing of the settings."""
        return {
            "current": self.current,
            "evidence": dict(self.evidence),
            "looks": self.looks,
            "gathered": {
                name: [list(e.moments), e.mean, e.entropy, e.batches]
                for name, e in self._gathered.items()
            },
            "spreads": {name: list(spread) for name, spread in self._spreads.items()},
            "varying": self.varying,
            "scanner_changes": self.scanner_changes,
            "mistrusted": self.mistrusted,
            "relented": self.relented,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.current, self.looks = state_dict["current"], state_dict["looks"]
        self.evidence, self.varying = dict(state_dict["evidence"]), state_dict["varying"]
        self.scanner_changes = state_dict["scanner_changes"]
        self.mistrusted, self.relented = state_dict["mistrusted"], state_dict["relented"]
        self._gathered = {
            name: Evidence(ClassMoments(*moments), *rest)
            for name, (moments, *rest) in state_dict["gathered"].items()
        }
        self._spreads = {name: Spread(*values) for name, values in state_dict["spreads"].items()}

    def _spread(self, name: str, counts: Tensor) -> None:
        """Take a batch into the spread of the mix that these statistics predict."""
        self._spreads[name] = spread_with(
            self._spreads.get(name) or no_spread(self.num_classes, counts.device), counts
        )

    def _dispersed(self, name: str, like: Tensor) -> Tensor:
        """The overdispersion of that mix so far; 0 while hardly anything is known."""
        spread = self._spreads.get(name)
        return (
            like.new_zeros(())
            if spread is None
            else overdispersion(spread) * (spread.batches >= _FEWEST)
        )


def home_of(names: Mapping[str, object]) -> str | None:
    """The candidate that stands for the published statistics; None where there is none."""
    return next((name for name in HOMES if name in names), None)


def handicapped(evidence: Mapping[str, float], varying: int) -> dict[str, float]:
    """Evidence less what each candidate must lead by.

    Args:
        evidence: of each candidate, by name.
        varying: whether the mix of classes varies between batches: 0 no, 1 somewhat, 2 clearly.
    """
    home = home_of(evidence)
    lag = 0.0 if home is None or "source" not in evidence else evidence[home] - evidence["source"]
    suspect = max(varying, int(lag < -_HANDICAPS["source"][0]))
    handicaps = {name: levels[suspect] for name, levels in _HANDICAPS.items()}
    if not suspect:
        handicaps["corrected"] += _LAG * max(0.0, lag)
    return {name: value - handicaps.get(name, 0.0) for name, value in evidence.items()}


def lead_of(evidence: Mapping[str, float], home: str) -> float:
    """By how much the best of the others leads the published statistics; below 0 where none does.

    Args:
        evidence: from ``handicapped``, of ``home`` and at least one other.
        home: from ``home_of``.
    """
    return max(value for name, value in evidence.items() if name != home) - evidence[home]


def choose(evidence: Mapping[str, float], current: str, hysteresis: float) -> str:
    """The candidate with the most evidence, unless the current one is about as good.

    Args:
        evidence: from ``handicapped``; not empty.
        current: the candidate in use.
        hysteresis: how much better another must be.
    """
    best = max(evidence, key=evidence.__getitem__)
    return (
        current
        if current in evidence and evidence[best] <= evidence[current] + hysteresis
        else best
    )
