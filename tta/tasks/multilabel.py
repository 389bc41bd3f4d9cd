"""Several findings an image, each present or not."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.findings.kept import KeptFindings
from holdfast.tta.findings.thresholds import fit_thresholds
from holdfast.tta.outputs import as_columns, check_width
from holdfast.tta.prediction import Prediction
from holdfast.tta.selection import find_head, name_of
from holdfast.tta.tasks.base import Task
from holdfast.tta.tasks.kept import Kept, Scorer
from holdfast.tta.tasks.ranks import RankScorer


class Multilabel(Task):
    """Each of L findings is present in an image or not, whatever the others are.

    The output is a logit z for each finding (N, L). Rows are image by finding, of two classes,
    absent and present, with logits 0 and z; a group is a finding.

    Args:
        num_classes: L.
        thresholds: probability from which on each finding is called present; where they are not
            given, training fits them, and .5 until then.
    """

    name: ClassVar[str] = "multilabel"
    target: ClassVar[str] = "findings"
    watch: ClassVar[str] = "auroc"
    view: ClassVar[str] = "findings"
    row: ClassVar[str] = "finding"
    options: ClassVar[tuple[str, ...]] = ("thresholds",)
    fewest: ClassVar[int] = 1

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, **options)
        given = options.get("thresholds")
        self.thresholds = [0.5] * num_classes if given is None else [float(t) for t in given]
        if len(self.thresholds) != num_classes or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(
                f"task.thresholds={given} must be {num_classes} probabilities, one a finding"
            )

    @property
    def row_classes(self) -> int:
        """Absent or present."""
        return 2

    @property
    def groups(self) -> int:
        """L, the findings."""
        return self.num_classes

    def head(self, model: nn.Module, name: str | None) -> nn.Module:
        """The classifier: the last Linear layer, unless it is named."""
        found = find_head(model, name)
        check_width(found, name_of(model, found), self.num_classes, one_for_two=False)
        return found

    def output(self, answer: Any) -> Tensor:
        """Logits (N, L)."""
        return as_columns(answer, self.num_classes)

    def probabilities(self, output: Tensor) -> Tensor:
        """(N, L) of each finding."""
        return output.sigmoid()

    def inverse(self, probabilities: Tensor) -> Tensor:
        """Their log-odds."""
        return probabilities.logit(eps=1e-7)

    def decide(self, probabilities: Tensor) -> Tensor:
        """(N, L) whether each finding is present."""
        return probabilities >= probabilities.new_tensor(self.thresholds)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy, in nats, over findings (N, L) that are known, not NaN."""
        known = target.isfinite()
        each = F.binary_cross_entropy_with_logits(
            output.float(), target.nan_to_num(0.0).float(), reduction="none"
        )
        return (each * known).sum() / known.sum().clamp(min=1)

    def scorer(self) -> Scorer:
        """AUROC, mean over findings."""
        return RankScorer(self.num_classes)

    def kept(self, class_names: Sequence[str]) -> Kept:
        """Probabilities and findings of each image."""
        return KeptFindings(class_names, self.thresholds)

    def settle(self, kept: Any, class_names: Sequence[str]) -> None:
        """Fit the thresholds."""
        if self.given.get("thresholds") is None:
            found = fit_thresholds(kept.probabilities, kept.findings, class_names)
            self.thresholds[:] = self.given["thresholds"] = found

    def rows(self, output: Tensor, features: Tensor) -> Prediction:
        """Image by finding, as binary rows."""
        count, findings = output.shape
        z = output.reshape(-1, 1)
        repeated = features[:, None].expand(-1, findings, -1).reshape(count * findings, -1)
        image = torch.arange(count, device=output.device).repeat_interleave(findings)
        group = torch.arange(findings, device=output.device).repeat(count)
        return Prediction(torch.cat([torch.zeros_like(z), z], 1), repeated, output, image, group)

    def labels(self, target: Tensor, prediction: Prediction) -> Tensor:
        """(N·L,) 1 where a finding is present, of findings (N, L)."""
        flat = target.flatten()
        return torch.where(flat.isfinite(), (flat > 0.5).long(), -1)

    def drift(self, adapted: Tensor, control: Tensor) -> Tensor:
        """By how much the share of images with a finding has moved, of the finding that moved most,
        beyond what chance makes of so many findings.

        Shares of n images stray by sqrt(p (1 − p) / n), and the most of L findings by
        sqrt(2 ln 2L) times as much (a maximum of L sub-Gaussian deviations).
        """
        a, c = (counts.view(-1, 2) for counts in (adapted, control))
        images = c.sum(1).clamp(min=1)
        share = c[:, 1] / images
        moved = (a[:, 1] / a.sum(1).clamp(min=1) - share).abs()
        spread = (share * (1 - share) / images).sqrt()
        chance = math.sqrt(2 * math.log(2 * self.num_classes)) * spread
        return (moved - chance).clamp(min=0).max()

    def mix(self, prediction: Prediction) -> Tensor:
        """(N, L, 2) probabilities of absence and presence."""
        p = prediction.served.detach().float().sigmoid()
        return torch.stack([1 - p, p], 2)

    def kind(self, prediction: Prediction) -> Tensor:
        """(N,) one more than the likeliest finding, 0 where none is likelier than not."""
        best, kind = prediction.served.detach().max(1)
        return torch.where(best > 0, kind + 1, 0)

    @property
    def kinds(self) -> int:
        """The findings, and none."""
        return self.num_classes + 1
