"""What is kept of masks: a few numbers of each case."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor

from holdfast.tta.masks.figures import CaseScorer, Figures
from holdfast.tta.masks.scores import mask_scores


class KeptMasks:
    """Figures of the foreground classes of each case.

    Args:
        class_names: of all classes, the background first.
        tolerance: up to which a surface lies where it should, in mm.
    """

    def __init__(self, class_names: Sequence[str], tolerance: float) -> None:
        self.names = tuple(class_names)[1:]
        self._scorer = CaseScorer(range(1, len(class_names)), tolerance)

    @property
    def figures(self) -> Figures:
        """(N, K) of all cases by name."""
        return self._scorer.figures

    def cases(
        self, output: Tensor, truth: Tensor | None, spacings: Sequence[Any] | None = None
    ) -> list[dict[str, list[float]]]:
        """Figures of logits (N, C, *spatial) and masks (N, *spatial), a dictionary each."""
        return self._scorer.cases(output.argmax(1), truth, spacings)

    def take(self, cases: Sequence[Mapping[str, Sequence[float]]]) -> None:
        """Keep the figures of some cases."""
        self._scorer.take(cases)

    def add(
        self, output: Tensor, truth: Tensor | None, spacings: Sequence[Any] | None = None
    ) -> None:
        """See ``Kept``."""
        self.take(self.cases(output, truth, spacings))

    def scores(
        self,
        domains: Sequence[str],
        *,
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        aggregate: bool = False,
        bootstrap: int = 0,
    ) -> dict[str, Any]:
        """See ``mask_scores``."""
        return mask_scores(
            *(self.figures, self.names, domains),
            groups=groups,
            columns=columns,
            aggregate=aggregate,
            bootstrap=bootstrap,
        )
