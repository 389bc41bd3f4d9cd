"""How far the surface of a mask lies from that of the true one; distances are MONAI's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

#: Share of the distances that the Hausdorff distance leaves below it, as is common: the largest
#: alone hangs on one pixel.
_PERCENTILE = 95


class Surfaces(NamedTuple):
    """Distances between two surfaces.

    Attributes:
        hd95: 95th percentile of the distances from either surface to the other, the larger of the
            two (Huttenlocher et al., 1993), in mm.
        assd: mean distance of all points of both surfaces to the other one, in mm.
        nsd: share of both surfaces that lies within a tolerance of the other (Nikolov et al.,
            2021), in [0, 1].
    """

    hd95: float
    assd: float
    nsd: float


def surfaces(
    predicted: Tensor, target: Tensor, spacing: Sequence[float], tolerance: float
) -> Surfaces:
    """Compare the surfaces of two masks.

    Where both are empty, all is right: 0 mm, and a share of 1. Where one is, all is wrong: the
    diagonal of the image, and a share of 0 (Maier-Hein et al., Metrics Reloaded, Nature Methods
    2024).

    >>> import torch
    >>> square = torch.zeros(6, 6, dtype=torch.bool)
    >>> square[1:4, 1:4] = True
    >>> surfaces(square, square.roll(1, 0), (1.0, 1.0), tolerance=0.5)
    Surfaces(hd95=1.0, assd=0.5, nsd=0.5)

    Args:
        predicted: (*spatial) booleans, on the CPU.
        target: (*spatial) booleans, on the CPU.
        spacing: of pixels along each axis, in mm.
        tolerance: up to which a surface lies where it should, in mm.
    """
    empty = [not bool(mask.any()) for mask in (predicted, target)]
    if all(empty):
        return Surfaces(0.0, 0.0, 1.0)
    if any(empty):
        return Surfaces(
            _diagonal(predicted.shape, spacing), _diagonal(predicted.shape, spacing), 0.0
        )
    # Here, for MONAI takes a second to import, and figures come last.
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    ours, theirs = get_mask_edges(predicted.numpy(), target.numpy())
    steps = list(spacing)
    both = [
        get_surface_distance(one, other, spacing=steps)
        for one, other in [(ours, theirs), (theirs, ours)]
    ]
    together = np.concatenate(both).astype(np.float64)
    farthest = max(float(np.percentile(distances, _PERCENTILE)) for distances in both)
    return Surfaces(farthest, float(together.mean()), float((together <= tolerance).mean()))


def _diagonal(sides: Sequence[int], spacing: Sequence[float]) -> float:
    """Length of an image's diagonal in mm: no two of its pixels lie farther apart."""
    squares = [((side - 1) * step) ** 2 for side, step in zip(sides, spacing, strict=True)]
    return float(sum(squares) ** 0.5)
