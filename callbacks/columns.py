"""Columns of ``predictions.csv``: which probabilities it holds, for of many classes all of them are
more than anybody reads, and what was known of each image before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor

from holdfast.datamodules.images import ImageSet
from holdfast.tta.settings import MANY_CLASSES
from holdfast.tta.step import StepOutputs

#: Columns for those who look into a run later: number of the batch (whose row of the trace says
#: what the guard knew), the guard's mode, the short hash of the weights with which the batch began,
#: and how many labels were known before.
AUDITED = ("batch", "mode", "weights", "labels")
#: What is known of each image (N,), by the column's name.
Known = Mapping[str, npt.NDArray[Any]]

_TOP = 5


class Columns:
    """The columns between a prediction and how it was served.

    Args:
        kind: ``PredictionsConfig.columns``.
        class_names: names of the C classes.
    """

    def __init__(self, kind: str, class_names: Sequence[str]) -> None:
        self._classes = class_names
        if kind == "auto":
            kind = "all" if len(class_names) <= MANY_CLASSES else "top5"
        self._kind = kind
        self._top = min(_TOP, len(class_names))

    @property
    def names(self) -> list[str]:
        """What they are called."""
        if self._kind == "all":
            return [f"prob_{name}" for name in self._classes]
        if self._kind == "none":
            return []
        return [name for k in range(1, self._top + 1) for name in (f"top{k}", f"prob{k}")]

    def cells(self, probabilities: Tensor) -> list[list[Any]]:
        """What they hold of each image, from probabilities (N, C)."""
        if self._kind == "none":
            return [[]] * len(probabilities)
        if self._kind == "all":
            return [[f"{p:.6f}" for p in row] for row in probabilities.tolist()]
        values, classes = probabilities.topk(self._top)
        pairs = zip(values.tolist(), classes.tolist(), strict=True)
        return [
            [cell for p, c in zip(*pair, strict=True) for cell in (self._classes[c], f"{p:.6f}")]
            for pair in pairs
        ]


def audited(outputs: StepOutputs) -> list[Any]:
    """What is told of a batch in ``AUDITED``, but for its number.

    Args:
        outputs: of the batch, as the guard left them.
    """
    weights = outputs.get("weights")
    labels = outputs.get("labels")
    told = "" if weights is None else weights()
    return [outputs.get("mode", ""), told, "" if labels is None else labels]


def known_of(images: ImageSet, columns: Known) -> dict[str, npt.NDArray[Any]]:
    """What a data set says of its images, by the name of the column.

    >>> import numpy as np
    >>> from holdfast.datamodules.targets import LabelTarget
    >>> images = ImageSet(
    ...     images=np.zeros((2, 4, 4), np.uint8),
    ...     target=LabelTarget(np.array([1, -1]), ("well", "ill")),
    ...     ids=np.array(["a.png", "b.png"]),
    ...     domains=np.array(["north", "north"]),
    ...     groups=np.array(["p1", "p1"]),
    ... )
    >>> {name: values.tolist() for name, values in known_of(images, {}).items()}
    {'label': ['ill', ''], 'group': ['p1', 'p1'], 'domain': ['north', 'north']}

    Args:
        images: of the stream.
        columns: (N,) by which metrics are split.

    Returns:
        What the target tells, as ``label`` where any image has one, ``group`` where images are not
        each a group of their own, ``domain``, and the columns.
    """
    known = images.target.columns()
    if has_groups(images):
        known["group"] = images.groups
    return {**known, "domain": images.domains, **columns}


def has_groups(images: ImageSet) -> bool:
    """Whether patients or slides are known: an image without one is a group of its own."""
    return bool((images.groups != images.ids).any())
