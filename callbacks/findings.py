"""The findings that leave a stream, a row an image, written as they are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.callbacks.predictions import RowWriter
from holdfast.tta.batches import Described, truth_of
from holdfast.tta.findings.kept import KeptFindings
from holdfast.tta.tasks import Task


class FindingWriter(RowWriter):
    """Writes ``predictions.csv`` with a probability ``prob_NAME`` and a decision ``NAME``, 1 or 0,
    for each finding.

    Args:
        path: the file.
        task: what the network's answer means.
        class_names: names of the findings.
        **more: see ``RowWriter``.
    """

    def __init__(self, path: Path, task: Task, class_names: tuple[str, ...], **more: Any) -> None:
        told = [column for name in class_names for column in (f"prob_{name}", name)]
        super().__init__(path, class_names, told, **more)
        self.task = task

    @property
    def kept_columns(self) -> list[Any]:
        """Output and findings."""
        findings = (len(self.class_names),)
        return [("output", "<f4", findings), ("finding", "<f4", findings)]

    def taken(self, output: Tensor, batch: Any, given: Described) -> dict[str, Tensor]:
        """Output and findings."""
        output = output.detach().cpu()
        truth = truth_of(batch, self.task.target, len(output))
        unknown = torch.full_like(output, float("nan"))
        return {"output": output, "finding": unknown if truth is None else truth.float().cpu()}

    def cells(self, served: Mapping[str, Any]) -> list[list[Any]]:
        """Probability and decision of each finding."""
        probabilities = self.task.probabilities(served["output"])
        decided = self.task.decide(probabilities).int().tolist()
        return [
            [cell for p, yes in zip(*row, strict=True) for cell in (f"{p:.6f}", yes)]
            for row in zip(probabilities.tolist(), decided, strict=True)
        ]

    @property
    def probabilities(self) -> Tensor:
        """(N, L) of all images, in stream order."""
        return self.task.probabilities(torch.from_numpy(self._column("output")))

    @property
    def thresholds(self) -> list[float]:
        """(L,) probability from which on each is called present."""
        return list(self._new().thresholds)

    @property
    def findings(self) -> Tensor:
        """(N, L) what is known of them, NaN unknown."""
        return torch.from_numpy(self._column("finding"))

    def _new(self) -> KeptFindings:
        kept = self.task.kept(self.class_names)
        assert isinstance(kept, KeptFindings)
        return kept

    def scores(self, **asked: Any) -> dict[str, Any]:
        """What all images are worth; see ``Kept.scores``."""
        kept = self._new()
        kept.add(torch.from_numpy(self._column("output")), self.findings)
        return kept.scores(self.domains, **asked)
