"""What labels say of the candidates, turned into what the guard serves: they outrank its unlabelled
evidence.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

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
        book_back, serving = self.book.marked(), self._serving  # which is replaced, never changed

        def go_back() -> None:
            book_back()
            self._serving = serving

        return go_back

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next choice depends on."""
        return {"book": self.book.state_dict(), "serving": list(self._serving)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.book.load_state_dict(state_dict["book"])
        self._serving = list(state_dict["serving"])
