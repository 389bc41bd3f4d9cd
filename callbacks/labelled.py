"""What labels say of the candidates, turned into what the guard serves.

Each label adds to the trust in who is right about its image, beside the unlabelled evidence: so a
few help before they prove anything. What they prove outranks all else.

Classes count alike, as in the balanced accuracy that is to be kept. Of n labels, a candidate that
is right about a share a_c of those of class c gains ``label`` · n · mean of a_c in the logarithm of
its share of trust: with ``label`` = 1, one on which two differ multiplies their odds by e.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.callbacks.guard.experts import Experts
from holdfast.callbacks.labels import SERVED, LabelBook
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.methods import Prediction
from holdfast.tta.step import Answering, Candidate

#: The name of the model that learns, among candidates.
_ADAPTED: Final = "adapted"


class LabelledChoice:
    """Holds what is served, and what each candidate says, against the labels that have come.

    Args:
        book: of the labels.
        experts: of the guard, who heed it.
    """

    def __init__(self, book: LabelBook, experts: Experts) -> None:
        self.book, self.experts = book, experts
        self._serving: list[str] = []
        #: Of each candidate (2, C): how often it was right, and asked, about images of each class.
        self._right: dict[str, NDArray[np.float64]] = {}
        #: The labels that came in with the last batch, by image.
        self.arrived: dict[str, str] = {}

    @property
    def known(self) -> int:
        """How many images' labels have come in."""
        return self.book.known

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
        told += self._weighed(arrived.heard)
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

    def _weighed(self, heard: Sequence[tuple[int, Mapping[str, int]]]) -> list[tuple[str, str]]:
        """Let labels add to the trust in who is right; an event where others serve by that."""
        experts, before = self.experts, sorted(self.experts.trusted)
        for label, said in heard:
            for name in experts.found.keys() & said.keys():
                known = self._right.get(name, np.zeros((2, len(self.book.class_names))))
                kept = min(1.0, experts.tuned.memory / max(known[1, label], 1.0))
                new = known.copy()  # what was there may be a mark to go back to
                new[:, label] = known[:, label] * kept + [said[name] == label, 1]
                self._right[name] = new
        count = max((right[1].sum() for right in self._right.values()), default=0.0)
        experts.told = {
            name: experts.tuned.label * count * _balanced(right)
            for name, right in self._right.items()
        }
        after = sorted(experts.trusted)
        if after == before or not heard:
            return []
        sentence = f"With {self.known} labels the trust goes from {_and(before)} to {_and(after)}."
        return [("weighed", sentence)]

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
        book_back, right = self.book.marked(), dict(self._right)
        serving = self._serving  # which is replaced, never changed

        def go_back() -> None:
            book_back()
            self._serving, self._right = serving, right

        return go_back

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next choice depends on."""
        return {
            "book": self.book.state_dict(),
            "serving": list(self._serving),
            "right": {name: right.tolist() for name, right in self._right.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.book.load_state_dict(state_dict["book"])
        self._serving = list(state_dict["serving"])
        known = state_dict.get("right", {})  # which a version before did not keep
        self._right = {name: np.array(right) for name, right in known.items()}


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _balanced(right: NDArray[np.float64]) -> float:
    """Mean over classes of how often a candidate was right, from counts (2, C)."""
    correct, asked = right[:, right[1] > 0]
    return float((correct / asked).mean())
