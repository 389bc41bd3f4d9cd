"""What a guard and corrected statistics must know of a source that was trained elsewhere, measured
on its labelled images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from holdfast.tta.batches import described, images_of
from holdfast.tta.correction import class_conditional_moments
from holdfast.tta.errors import InputError
from holdfast.tta.methods.base import Method
from holdfast.tta.row_facts import row_facts
from holdfast.tta.saying import warn
from holdfast.tta.source import class_statistics

#: Share of images by which another order of classes must fit better to be told of: a weak network
#: on some hundred images differs by less.
_BETTER = 0.25


@dataclass(frozen=True)
class SourceFacts:
    """What the source's classes look like to its network.

    Attributes:
        feature_mean: (C, D) mean features of each class (of masks and findings: of each cell of
            the task); zeros where it has no image.
        feature_var: (C, D) their variances.
        layer_moments: by BatchNorm layer, mean and mean square (2, C, channels) of what it sees of
            each class; empty where rows are not images.
        share_quantiles: (101, cells) of what images hold of each class, where they hold several.
    """

    feature_mean: Tensor
    feature_var: Tensor
    layer_moments: dict[str, Tensor]
    share_quantiles: Tensor | None = None

    @property
    def features(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a guard knows of them: means, variances, and the quantiles."""
        return self.feature_mean, self.feature_var, self.share_quantiles


@torch.no_grad()
def source_facts(method: Method, batches: Iterable[Any]) -> SourceFacts:
    """Measure the source on labelled images of its own, which the network was trained on or like.

    Args:
        method: that has learned nothing yet.
        batches: a few hundred images of each class, in any form that ``images_of`` reads;
            gone over twice, so those of an iterator are kept.

    Raises:
        InputError: no image has a label, or one has no finite features.

    Example:
        >>> from torch import nn
        >>> from holdfast.tta.methods import create_method
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> method = create_method("tent", network, num_classes=2, normalization="auto", lr=0.01)
        >>> facts = source_facts(method, [(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0]))])
        >>> facts.feature_mean.shape
        torch.Size([2, 8])
    """
    if not method.task.by_image:
        rows = row_facts(method, batches)
        return SourceFacts(rows.feature_mean, rows.feature_var, {}, rows.share_quantiles)
    device = next(method.model.parameters()).device
    classes = method.num_classes
    batches = list(batches) if iter(batches) is batches else batches
    features, labels, answers = [], [], []
    for batch in _labelled(batches, classes):
        heard = method.source(batch["image"].to(device))
        said = heard.features.float().cpu()
        if not torch.isfinite(said).all():
            raise InputError(
                "images of the source have numbers that are not finite, or make the network's "
                "features so: leave them out, since all that serves is held against them"
            )
        features.append(said)
        labels.append(batch["label"])
        answers.append(heard.logits.argmax(1).cpu())
    if not features:
        raise InputError(
            f"no image of the source has a label of 0 to {classes - 1}: give batches (images, "
            "labels)"
        )
    absent = sorted(set(range(classes)) - set(torch.cat(labels).tolist()))
    if absent:
        warn(
            f"the source shows no image of {len(absent)} of {classes} classes, the first of them "
            f"{absent[0]}: labels are 0 to {classes - 1}, in the order of the network's outputs"
        )
    _tell_of_order(torch.cat(labels), torch.cat(answers), classes)
    mean, var = class_statistics(torch.cat(features), torch.cat(labels), classes)
    moments = class_conditional_moments(method.model, _labelled(batches, classes), classes, device)
    return SourceFacts(mean, var, moments)


def _tell_of_order(labels: Tensor, answers: Tensor, classes: int) -> None:
    """Warn of labels that are in another order than the network's outputs."""
    pairs = torch.bincount(labels * classes + answers, minlength=classes**2)
    fits = pairs.view(classes, classes).double().numpy() / len(labels)
    places, best = linear_sum_assignment(fits, maximize=True)
    own, other = fits.trace(), fits[places, best].sum()
    moved = [(label, int(said)) for label, said in enumerate(best) if label != said]
    if moved and other - own > _BETTER:
        warn(
            f"the network is right of {own:.0%} of the source's images, and of {other:.0%} were "
            f"label {moved[0][0]} its class {moved[0][1]} and others moved likewise: labels are 0 "
            f"to {classes - 1}, in the order of the network's outputs"
        )


def _labelled(batches: Iterable[Any], classes: int) -> Iterator[dict[str, Tensor]]:
    """Images with a label, on the CPU."""
    for batch in batches:
        images = images_of(batch).cpu()
        labels = described(batch, len(images)).labels.cpu()
        known = (labels >= 0) & (labels < classes)
        if known.any():
            yield {"image": images[known], "label": labels[known]}
