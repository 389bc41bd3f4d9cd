"""How well findings are told from their absence, whatever the threshold."""

import torch
from torch import Tensor


def auroc(scores: Tensor, present: Tensor) -> float:
    """Area under the receiver's operating characteristic: the probability that one with the finding
    scores above one without, ties counting half (Mann and Whitney, 1947).

    Args:
        scores: (N,).
        present: (N,) booleans.

    Returns:
        In [0, 1]; NaN where all or none have the finding.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, False, True, True]))
        0.875
    """
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks = (last - (counts - 1) / 2.0)[place]  # of ties, the mean
    total = float(ranks[present].double().sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


class RankScorer:
    """AUROC over all images that were added, in percent; keeps their outputs."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, output: Tensor, target: Tensor) -> None:
        """Take in logits (N, L) and findings (N, L), NaN where they are unknown."""
        self._outputs.append(output.detach().float().cpu())
        self._targets.append(target.detach().float().cpu())

    def merge(self, other: "RankScorer") -> None:
        """Take in another's images."""
        self._outputs += other._outputs
        self._targets += other._targets

    def scores(self) -> dict[str, float]:
        """``auroc``, mean over findings that are both present and absent; none where no one is."""
        if not self._outputs:
            return {}
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        values = []
        for finding in range(self.num_classes):
            known = targets[:, finding].isfinite()
            values.append(auroc(outputs[known, finding], targets[known, finding] > 0.5))
        defined = [value for value in values if value == value]
        return {"auroc": 100 * sum(defined) / len(defined)} if defined else {}
