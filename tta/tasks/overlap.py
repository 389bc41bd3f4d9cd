"""How well a mask lies on the true one, as loss and as figure."""

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.tta.marginal import likeliest

#: Keeps soft Dice defined, and its gradient calm, where neither has a pixel of a class (nnU-Net).
_SMOOTH = 1e-5


def dice_loss(output: Tensor, target: Tensor) -> Tensor:
    """One minus soft Dice, over all images of the batch together, mean over foreground classes.

    Args:
        output: logits (N, C, *spatial).
        target: (N, *spatial) classes; negative ones are left out.

    Returns:
        Scalar in [0, 1].
    """
    p = output.float().softmax(1).flatten(2)
    labels = target.flatten(1)
    known = labels >= 0
    truth = F.one_hot(labels.clamp(min=0), output.shape[1]).transpose(1, 2).to(p)
    truth, p = truth * known[:, None], p * known[:, None]
    shared = (p * truth).sum((0, 2))
    total = p.sum((0, 2)) + truth.sum((0, 2))
    return 1 - ((2 * shared + _SMOOTH) / (total + _SMOOTH))[1:].mean()


def dice(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Dice of each foreground class in each image.

    Args:
        predicted: (N, *spatial) classes.
        target: (N, *spatial) classes; negative ones are left out.
        num_classes: C.

    Returns:
        (N, C-1) in [0, 1]; NaN where neither has a pixel of the class.

    Example:
        >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), 2)
        tensor([[0.6667]])
    """
    known = (target >= 0).flatten(1)
    values = []
    for label in range(1, num_classes):
        one, other = (predicted == label).flatten(1) & known, (target == label).flatten(1)
        values.append(2 * (one & other).sum(1) / (one.sum(1) + other.sum(1)))
    return torch.stack(values, 1)


def disagreement(p: Tensor, q: Tensor) -> Tensor:
    """One minus Dice of the masks of two predictions, mean over the foreground classes that either
    finds; 0 where none does.

    Of masks, not of probabilities: squared ones call a model that is unsure everywhere consistent,
    plain ones doubt it for being unsure.

    Args:
        p: probabilities (N, C, *spatial).
        q: others of the same images.

    Returns:
        (N,) in [0, 1].
    """
    apart = 1 - dice(likeliest(p), likeliest(q), p.shape[1])
    return apart.nanmean(1).nan_to_num(0.0)


class DiceScorer:
    """Mean Dice over images, of each foreground class and of all, in percent.

    An image counts for a class that it or the prediction shows.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.total = torch.zeros(num_classes - 1, dtype=torch.float64)
        self.images = torch.zeros(num_classes - 1)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Take in logits (N, C, *spatial) and masks (N, *spatial); images without a labelled pixel
        are left out.
        """
        labelled = (target >= 0).flatten(1).any(1)
        if not labelled.any():
            return
        values = dice(likeliest(output[labelled]), target[labelled], self.num_classes).cpu()
        self.total += values.nan_to_num(0.0).sum(0)
        self.images += values.isfinite().sum(0)

    def merge(self, other: "DiceScorer") -> None:
        """Take in another's images."""
        self.total += other.total
        self.images += other.images

    def scores(self) -> dict[str, float]:
        """``dice``; none where no image had a labelled pixel of any class."""
        seen = self.images > 0
        if not seen.any():
            return {}
        return {"dice": float(100 * (self.total[seen] / self.images[seen]).mean())}
