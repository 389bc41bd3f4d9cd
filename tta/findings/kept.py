"""What is kept of findings: their probabilities, and what is known of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.tta.findings.scores import finding_scores


class KeptFindings:
    """Probabilities and truth of each image.

    Args:
        class_names: of the L findings.
        thresholds: (L,) probability from which on each is called present; looked at when scores are
            asked for.
    """

    def __init__(self, class_names: Sequence[str], thresholds: Sequence[float]) -> None:
        self.names, self.thresholds = tuple(class_names), thresholds
        self._probabilities: list[Tensor] = []
        self._findings: list[Tensor] = []

    def add(
        self, output: Tensor, truth: Tensor | None, spacings: Sequence[Any] | None = None
    ) -> None:
        """Take in logits (N, L) and findings (N, L), NaN unknown; see ``Kept``."""
        self._probabilities.append(output.detach().float().sigmoid().cpu())
        unknown = torch.full(output.shape, float("nan"))
        self._findings.append(unknown if truth is None else truth.detach().float().cpu())

    @property
    def probabilities(self) -> Tensor:
        """(N, L) of all images, in stream order."""
        return torch.cat(self._probabilities or [torch.zeros(0, len(self.names))])

    @property
    def findings(self) -> Tensor:
        """(N, L) what is known of them, NaN unknown."""
        return torch.cat(self._findings or [torch.zeros(0, len(self.names))])

    def scores(
        self,
        domains: Sequence[str],
        *,
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        aggregate: bool = False,
        bootstrap: int = 0,
    ) -> dict[str, Any]:
        """See ``finding_scores``."""
        return finding_scores(
            self.probabilities.numpy(),
            self.findings.numpy(),
            self.names,
            self.thresholds,
            domains,
            groups=np.asarray(groups),
            columns=columns,
            aggregate=aggregate,
            bootstrap=bootstrap,
        )
