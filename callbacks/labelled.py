"""What labels say of the candidates, turned into what the guard serves.

Each label adds to the trust in who is right about its image, beside the unlabelled evidence: so a
few help before they prove anything. What they prove outranks all else.

Classes count alike, as in the balanced accuracy that is to be kept, and it is known the less well
the rarer a class: of n_c labels of each of k classes as well as of k² / Σ 1/n_c, alike of each. So
to the logarithm of a candidate's share a label of class c adds, where it is right about the image,

    label · k / (n_c · Σ 1/n_j)

With ``label`` = 1 and as many labels of each class, one on which two differ multiplies their odds
by e.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from holdfast.callbacks.guard.experts import Experts
from holdfast.callbacks.labels import SERVED, LabelBook
from holdfast.callbacks.settings import tightened
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Answering, Candidate

#: The name of the model that learns, among candidates.
_ADAPTED: Final = "adapted"
#: Most chance that a class's share lies outside its bounds, half of it on each side: a convention,
#: and not tuned.
_OUTSIDE = 0.1


class LabelledChoice:
    """Holds what is served, and what each candidate says, against the labels that have come.

    Args:
        book: of the labels.
        experts: of the guard, who heed it.
    """

    def __init__(self, book: LabelBook, experts: Experts) -> None:
        self.book, self.experts = book, experts
        self._serving: list[str] = []
        #: Labels of each class (C,), and of each candidate how often it was right about them.
        self._counted = np.zeros(len(book.class_names))
        self._right: dict[Candidate, NDArray[np.float64]] = {}
        #: All labels of each class (C,) that came, by which its share is known.
        self._drawn = np.zeros(len(book.class_names))
        #: The labels that came in with the last batch, by image.
        self.arrived: dict[str, str] = {}

    @property
    def known(self) -> int:
        """How many images' labels have come in."""
        return self.book.known

    @property
    def bounds(self) -> Tensor | None:
        """Least and largest share (2, C) of each class that labels leave likely, if their images
        were drawn at random (Clopper and Pearson, 1934); None without labels.
        """
        seen = self._drawn
        others = seen.sum() - seen
        if not seen.any():
            return None
        # At 0 of so many, and at all of them, the bound is the end itself.
        low = np.where(seen > 0, betaincinv(np.maximum(seen, 1), others + 1, _OUTSIDE / 2), 0.0)
        high = np.where(
            others > 0, betaincinv(seen + 1, np.maximum(others, 1), 1 - _OUTSIDE / 2), 1.0
        )
        return tightened(torch.from_numpy(np.stack([low, high])).float())

    def take(
        self,
        ids: Sequence[str],
        served: Tensor,
        adapted: Tensor,
        said: Mapping[Candidate, Prediction],
        *,
        learning: bool,
    ) -> list[tuple[str, str]]:
        """Remember a batch, count the labels that came, and tell the experts.

        Args:
            ids: (N,) of the images.
            served: (N, C) logits that left.
            adapted: (N, C) logits of the adapted model.
            said: what un-updated networks say, of which those are kept that spoke of every image.
            learning: whether the adapted model serves and learns.

        Returns:
            Reason and sentence of each event.
        """
        rows: dict[str, Tensor] = {SERVED: served, _ADAPTED: adapted}
        rows |= {name: one.logits for name, one in said.items() if len(one.logits) == len(ids)}
        whole = batch_of_all({"id": ids, **{name: row.cpu() for name, row in rows.items()}})
        self.book.remember(whole.pop("id"), whole)
        arrived = self.book.read()
        self.arrived = {name: self.book.class_of(name) for name in arrived.ids}
        told = [("warning", sentence) for sentence in arrived.warnings]
        told += self._weighed(arrived.heard, learning=learning)
        verdict = self.book.verdict()
        if verdict.better is not None and verdict.better != self.experts.pinned:
            self.experts.pinned = cast("Answering", verdict.better)
            self.experts.barred = frozenset()
            told.append(
                (
                    "better",
                    f"{verdict.labels} labels show that {verdict.better} is better than what was "
                    f"served (level {verdict.level:g}): it serves from now on.",
                )
            )
        elif set(verdict.worse) - self.experts.barred:
            self.experts.barred |= frozenset(cast("tuple[Answering, ...]", verdict.worse))
            told.append(
                (
                    "worse",
                    f"{verdict.labels} labels show that {', '.join(sorted(verdict.worse))} would "
                    f"be worse than what is served (level {verdict.level:g}).",
                )
            )
        self._follow(learning)
        return told

    def _weighed(
        self, heard: Sequence[tuple[int, Mapping[str, int]]], *, learning: bool
    ) -> list[tuple[str, str]]:
        """Let labels add to the trust in who is right; an event where others serve by that."""
        if not heard:
            return []
        experts, before = self.experts, sorted(self.experts.trusted)
        self._drawn = self._drawn + np.bincount(
            [label for label, _ in heard], minlength=len(self._drawn)
        )
        for label, said in heard:
            known = dict(said)
            if learning and experts.working is not None and _ADAPTED in known:
                known[experts.working] = known[_ADAPTED]  # which serves in its name
            right = {n: float(known[n] == label) for n in experts.found if n in known}
            if right:
                self._count(label, right)
        experts.told = self._gained()
        after = sorted(experts.trusted)
        if after == before:
            return []
        sentence = f"With {self.known} labels the trust goes from {_and(before)} to {_and(after)}."
        return [("weighed", sentence)]

    def _count(self, label: int, right: Mapping[Candidate, float]) -> None:
        """Count a label; who said nothing of its image is taken to be as good as the others.

        Values are replaced, never changed: they may be marks to go back to.
        """
        kept = np.ones_like(self._counted)
        kept[label] = min(1.0, self.experts.tuned.memory / max(self._counted[label], 1.0))
        one = np.zeros_like(self._counted)
        one[label] = 1.0
        self._counted = self._counted * kept + one
        usual, rest = mean(right.values()), [*self._right.values()]
        past = np.mean(rest, 0) if rest else np.zeros_like(one)
        self._right = {
            name: self._right.get(name, past) * kept + right.get(name, usual) * one
            for name in self.experts.found
        }

    def _gained(self) -> dict[Candidate, float]:
        """What labels add to the logarithm of each candidate's share."""
        seen = self._counted > 0
        each = 1 / self._counted[seen]
        weight = self.experts.tuned.label * seen.sum() * each / each.sum()
        return {name: float(weight @ right[seen]) for name, right in self._right.items()}

    def _follow(self, learning: bool) -> None:
        """Let the tests begin anew where something else serves."""
        own = self.experts.working if learning else None
        serving = [_ADAPTED if name == own else name for name in sorted(self.experts.trusted)]
        if serving != self._serving and self._serving:
            self.book.restart(serving[0] if len(serving) == 1 else None)
            self.experts.barred = frozenset()
        self._serving = serving

    def marked(self) -> Callable[[], None]:
        """The way back to where the choice stands now, in memory."""
        book_back = self.book.marked()
        # Which are replaced, never changed.
        kept = self._serving, self._counted, self._right, self._drawn

        def go_back() -> None:
            book_back()
            self._serving, self._counted, self._right, self._drawn = kept

        return go_back

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next choice depends on."""
        return {
            "book": self.book.state_dict(),
            "serving": list(self._serving),
            "counted": self._counted.tolist(),
            "drawn": self._drawn.tolist(),
            "right": {name: right.tolist() for name, right in self._right.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.book.load_state_dict(state_dict["book"])
        self._serving = list(state_dict["serving"])
        if "counted" in state_dict:  # which a version before did not keep
            self._counted = np.array(state_dict["counted"])
            self._drawn = np.array(state_dict.get("drawn", state_dict["counted"]))
            self._right = {name: np.array(one) for name, one in state_dict["right"].items()}


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
