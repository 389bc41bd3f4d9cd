"""Which probabilities ``predictions.csv`` holds: of many classes all of them are more than anybody
reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from holdfast.tta.options import option

#: Classes up to which all probabilities are written, unless told otherwise: a row is then about a
#: kilobyte.
_MANY = 100
_TOP = 5


@dataclass
class PredictionsConfig:
    """What is written of each prediction."""

    columns: Literal["auto", "all", "top5", "none"] = option(
        "auto",
        "probabilities of all classes, the top5 with their classes, or none; auto: all up to "
        f"{_MANY}",
    )
    parquet: bool = option(False, "leave predictions.parquet as well, with ids as they are")


class Columns:
    """The columns between a prediction and how it was served.

    Args:
        kind: ``PredictionsConfig.columns``.
        class_names: names of the C classes.
    """

    def __init__(self, kind: str, class_names: Sequence[str]) -> None:
        self._classes = class_names
        if kind == "auto":
            kind = "all" if len(class_names) <= _MANY else "top5"
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
