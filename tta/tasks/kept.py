"""What is kept of predictions so that they can be scored: figures, never the predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

#: (N,) something that is known of each image.
Column = npt.NDArray[Any]


class Scorer(Protocol):
    """Counts what predictions are worth, batch by batch."""

    def add(self, output: Tensor, target: Tensor) -> None:
        """Take in a network's output and the truth of the same images."""

    def scores(self) -> dict[str, float]:
        """Figures in percent by name; none where there was no truth."""

    def merge(self, other: Any) -> None:
        """Take in what another of the same task has counted, on other images."""


class Kept(Protocol):
    """What is kept of a stream's predictions, image by image in stream order."""

    def add(
        self, output: Tensor, truth: Tensor | None, spacings: Sequence[Any] | None = None
    ) -> None:
        """Take in images.

        Args:
            output: of the network.
            truth: of the same images; None: nothing is known.
            spacings: (N, dims) of their pixels, in mm; None: not known.
        """

    def scores(
        self,
        domains: Sequence[str],
        *,
        groups: Column,
        columns: Mapping[str, Column],
        aggregate: bool = False,
        bootstrap: int = 0,
    ) -> dict[str, Any]:
        """What all of it is worth, as ``metrics.json`` tells; empty where nothing is known.

        Args:
            domains: (N,) of the images.
            groups: (N,) patient or slide of each.
            columns: (N,) subgroup of each, by the column's name.
            aggregate: each group counts once.
            bootstrap: resamples of groups for 95 % intervals; 0: none.
        """


class KeptFigure:
    """One figure of all images: what a task has that says nothing else.

    Args:
        scorer: counts it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.images = scorer, 0

    def add(
        self, output: Tensor, truth: Tensor | None, spacings: Sequence[Any] | None = None
    ) -> None:
        """Take in images."""
        if truth is not None:
            self.scorer.add(output, truth.to(output.device))
            self.images += len(output)

    def scores(
        self,
        domains: Sequence[str],
        *,
        groups: Column,
        columns: Mapping[str, Column],
        aggregate: bool = False,
        bootstrap: int = 0,
    ) -> dict[str, Any]:
        """The figure, and of how many images it is."""
        found = {name: round(value, 4) for name, value in self.scorer.scores().items()}
        if not found:
            return {}
        return {"level": "image", "images": self.images, "groups": len(np.unique(groups)), **found}
