"""Figures of each case: how well its mask lies on the true one, and how large it is."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
from torch import Tensor

from holdfast.tta.masks.surfaces import surfaces

#: Figures by name, in the order of tables: shares in [0, 1], distances in mm.
SHARES, DISTANCES = ("dice", "iou", "nsd"), ("hd95", "assd")
SIZES = ("volume", "true_volume", "share")
FIGURES = ("dice", "iou", "hd95", "assd", "nsd", *SIZES)
#: Those that ask for no truth.
UNSCORED = ("volume", "share")

Figures = Mapping[str, npt.NDArray[np.float64]]


def case_figures(
    predicted: Tensor,
    target: Tensor | None,
    classes: Sequence[int],
    spacing: Sequence[float],
    tolerance: float,
) -> dict[str, list[float]]:
    """Figures of one case, a list with one of each class.

    An empty reference counts as Metrics Reloaded says (Maier-Hein et al., Nature Methods 2024): an
    empty prediction is right of it, Dice 1, and any other wrong, Dice 0.

    Args:
        predicted: (*spatial) classes, on the CPU.
        target: (*spatial) classes, of which negative ones are not known and left out; None: there
            is no truth, and figures that ask for it are NaN.
        classes: that are looked at.
        spacing: of pixels along each axis, in mm.
        tolerance: of the surfaces, in mm.

    Returns:
        Lists by the names of ``FIGURES``; volumes in mm³, or mm² of pictures; shares of the pixels
        that are predicted as the class in [0, 1].
    """
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    one = prod(spacing)
    known = None if target is None else target >= 0
    for label in classes:
        ours = predicted == label
        found["volume"].append(one * int(ours.sum()))
        found["share"].append(int(ours.sum()) / max(ours.numel(), 1))
        if target is None or known is None or not bool(known.any()):
            for name in set(FIGURES) - set(UNSCORED):
                found[name].append(float("nan"))
            continue
        ours, theirs = ours & known, target == label
        shared, total = int((ours & theirs).sum()), int(ours.sum()) + int(theirs.sum())
        found["true_volume"].append(one * int(theirs.sum()))
        found["dice"].append(2 * shared / total if total else 1.0)
        found["iou"].append(shared / (total - shared) if total else 1.0)
        for name, value in surfaces(ours, theirs, spacing, tolerance)._asdict().items():
            found[name].append(value)
    return found


class CaseScorer:
    """Takes in masks case by case, and keeps a few numbers of each.

    Args:
        classes: that are looked at: the foreground.
        tolerance: of the surfaces, in mm.

    Example:
        >>> import torch
        >>> scorer = CaseScorer([1], tolerance=1.0)
        >>> scorer.take(scorer.cases(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]])))
        >>> round(float(scorer.figures["dice"][0, 0]), 4)
        0.6667
    """

    def __init__(self, classes: Sequence[int], tolerance: float) -> None:
        self.classes, self.tolerance = tuple(classes), tolerance
        self._found: dict[str, list[list[float]]] = {name: [] for name in FIGURES}

    def __len__(self) -> int:
        return len(self._found["dice"])

    def cases(
        self,
        predicted: Tensor,
        target: Tensor | None,
        spacings: Sequence[Sequence[float] | None] | None = None,
    ) -> list[dict[str, list[float]]]:
        """Figures of some cases, which are not kept.

        Args:
            predicted: (N, *spatial) classes.
            target: (N, *spatial) classes, negative where not known; None: nothing is.
            spacings: (N, dims) of pixels, in mm; None: 1, so that distances are in pixels.

        Returns:
            Those of each, as ``case_figures`` gives them.
        """
        said = predicted.cpu()
        truth = [None] * len(said) if target is None else list(target.cpu())
        steps = [None] * len(said) if spacings is None else spacings
        return [
            case_figures(
                *(mask, of, self.classes, step or [1.0] * mask.dim(), self.tolerance),
            )
            for mask, of, step in zip(said, truth, steps, strict=True)
        ]

    def take(self, cases: Sequence[Mapping[str, Sequence[float]]]) -> None:
        """Keep the figures of some cases."""
        for case in cases:
            for name, values in case.items():
                self._found[name].append(list(values))

    @property
    def figures(self) -> dict[str, npt.NDArray[np.float64]]:
        """(N, K) of all cases so far, by the names of ``FIGURES``; NaN where there was no truth."""
        shape = (len(self), len(self.classes))
        return {
            name: np.array(values, dtype=np.float64).reshape(shape)
            for name, values in self._found.items()
        }
