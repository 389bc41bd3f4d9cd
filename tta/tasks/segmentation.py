"""One label a pixel, or voxel."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holdfast.tta.errors import InputError
from holdfast.tta.marginal import likeliest, predicted_counts
from holdfast.tta.masks.kept import KeptMasks
from holdfast.tta.outputs import as_maps
from holdfast.tta.prediction import Prediction
from holdfast.tta.selection import find_convolution
from holdfast.tta.tasks.base import Task
from holdfast.tta.tasks.kept import Kept, Scorer
from holdfast.tta.tasks.overlap import DiceScorer, dice_loss, disagreement
from holdfast.tta.tasks.sampling import PER_IMAGE, ROWS, balanced, positions

#: Up to which a surface lies where it should, in mm: about a pixel.
_TOLERANCE = 1.0
#: Class of a pixel that nobody has labelled.
_UNLABELLED = -1
#: Of what nearly all images of the source have: of an image in which a model finds less it hardly
#: says anything, and is taken to doubt itself by so much. Under little contrast that is what is
#: left of a source, and elsewhere an image may well be empty.
_HARDLY = 0.1
_NOTHING = 0.3
#: Doubt of an answer with more foreground than the source ever has: on retinal vessels and nuclei
#: under noise the control was the better one unless it doubted itself by more.
_LOST = 0.45
#: Where everything is foreground, from this share on, nothing is left of the image, and statistics
#: of the batch rarely mend that: under strong noise, and on H&E stains, a control that doubted
#: itself by more than this found other things than nuclei or vessels.
_ALL, _UNMENDED = 0.8, 0.2
#: Share of pixels that a class is taken to have at least: of fewer, changes are chance.
_RARE = 1e-3


class Segmentation(Task):
    """Each pixel belongs to one of C classes, of which 0 is the background; rows are pixels.

    Of a batch with more than 2¹⁸ pixels as many are rows, evenly spread.

    Args:
        num_classes: C.
        tolerance: up to which a surface lies where it should, in mm; 1 by default.
    """

    name: ClassVar[str] = "segmentation"
    target: ClassVar[str] = "mask"
    watch: ClassVar[str] = "dice"
    view: ClassVar[str] = "cases"
    row: ClassVar[str] = "pixel"
    dense: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("tolerance",)

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.tolerance = float(options.get("tolerance", _TOLERANCE))
        if not self.tolerance > 0:
            raise InputError(f"task.tolerance={options['tolerance']} must be above 0, in mm")

    def head(self, model: nn.Module, name: str | None) -> nn.Module:
        """The last convolution: of as many outputs as there are classes, unless it is named."""
        return find_convolution(model, name, self.num_classes)

    def output(self, answer: Any) -> Tensor:
        """Logits (N, C, *spatial)."""
        return as_maps(answer, self.num_classes)

    def probabilities(self, output: Tensor) -> Tensor:
        """(N, C, *spatial), each pixel's sum 1."""
        return output.softmax(1)

    def inverse(self, probabilities: Tensor) -> Tensor:
        """Their logarithms."""
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

    def decide(self, probabilities: Tensor) -> Tensor:
        """(N, *spatial) the likeliest class of each pixel."""
        return likeliest(probabilities)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Soft Dice of the foreground and cross-entropy, of a mask (N, *spatial) in which -1 is
        not known (nnU-Net's sum: Isensee et al., Nature Methods 2021).
        """
        if output.shape[2:] != target.shape[1:]:
            raise InputError(
                f"the network answers masks of {_sides(output.shape[2:])} pixels, and the truth "
                f"has {_sides(target.shape[1:])}: give a network that answers in the size of its "
                "images"
            )
        known = (target != _UNLABELLED).sum().clamp(min=1)
        pixelwise = F.cross_entropy(
            output.float(), target, ignore_index=_UNLABELLED, reduction="sum"
        )
        return pixelwise / known + dice_loss(output, target)

    def scorer(self) -> Scorer:
        """Mean Dice of the foreground classes over images."""
        return DiceScorer(self.num_classes)

    def kept(self, class_names: Sequence[str]) -> Kept:
        """Figures of the foreground classes of each case."""
        return KeptMasks(class_names, self.tolerance)

    def rows(self, output: Tensor, features: Tensor) -> Prediction:
        """The pixels, or some of them, evenly spread; features of another resolution are taken
        where the pixel lies.
        """
        count, sides = len(output), output.shape[2:]
        if features.shape[2:] != sides:
            features = F.interpolate(features, tuple(sides), mode="nearest")
        picked = positions(sides.numel(), max(ROWS // max(count, 1), 1), output.device)
        logits, features = _pixels(output, picked), _pixels(features, picked)
        image = torch.arange(count, device=output.device).repeat_interleave(
            len(logits) // max(count, 1)
        )
        return Prediction(logits, features, output, image)

    def labels(self, target: Tensor, prediction: Prediction) -> Tensor:
        """(M,) class of each pixel, of masks (N, *spatial)."""
        flat = target.flatten(1)
        rows = len(prediction.logits) // max(len(flat), 1)
        where = positions(flat.shape[1], rows, flat.device)
        return (flat if where is None else flat.index_select(1, where)).flatten()

    def picked(self, labels: Tensor, prediction: Prediction) -> Tensor | None:
        """64 pixels an image, of each class about as many."""
        if not len(labels):
            return None
        each = labels.view(len(prediction.served), -1)
        rows = balanced(each, self.num_classes)
        first = torch.arange(len(each), device=labels.device)[:, None] * each.shape[1]
        return (rows + first).flatten()

    @property
    def unit(self) -> int:
        """As many pixels as ``sample`` takes of an image."""
        return PER_IMAGE

    def counts(self, prediction: Prediction) -> Tensor:
        """(C,) pixels that are predicted as each class, each image counting for 64."""
        each = predicted_counts(prediction.logits, self.num_classes)
        rows = len(prediction.logits) / max(len(prediction.served), 1)
        return each * (PER_IMAGE / max(rows, 1))

    #: Of 36 streams of nuclei on which Tent and DSBR gained, or lost .1 points of Dice at most,
    #: none drifted by more than .16; beyond a third lay two thirds of harmful ones, by earlier
    #: measurements. The limit is of the sum beyond the level: two looks at a ruin, more at less.
    drift_level: ClassVar[float | None] = 0.2
    drift_limit: ClassVar[float | None] = 0.3

    #: A quarter of an image's: a case has some pixels of most classes, and is compared by itself.
    worth: ClassVar[int] = PER_IMAGE // 4
    #: By agreement under a flip, and the rule of trivial answers, .4 points of Dice were lost on 30
    #: streams of nuclei and vessels against the better of source and control (at worst 6.9), by
    #: always taking one of them 12.7 and 3.0. The first eight images mostly tell.
    look: ClassVar[int] = 8

    def image_doubt(self, doubt: Tensor, found: Tensor, shares: Tensor) -> Tensor:
        """The same where the foreground is a tenth or more of what nineteen in twenty images of the
        source have at least: everywhere, if more of those have none.
        """
        few = (1 - shares[95, 0]) * _HARDLY
        return torch.where(found < few, doubt.clamp(min=_NOTHING), doubt)

    def weighed(self, doubt: Tensor, found: Tensor, shares: Tensor) -> Tensor:
        """The same where as much foreground is found as the source may have. The less is found
        below a quarter of the source's mean, the less it is worth; far too much is worth no more
        than an answer that is lost; and all overlaps with any truth, which few that are unsure do.
        """
        foreground = 1 - shares[:, 0]
        largest = foreground.max()
        # Where a quarter of the source's images have less than that, little is no sign.
        few = torch.minimum(foreground.mean() / 4, foreground.quantile(0.25)).clamp(min=_RARE)
        most = torch.minimum(2 * largest, (1 + largest) / 2)
        least = torch.where(found > _ALL, _UNMENDED, _LOST)
        doubt = torch.where(found > most, doubt.clamp(min=least), doubt)
        return 1 - (1 - doubt) * (found / few).clamp(max=1)

    def drift(self, adapted: Tensor, control: Tensor) -> Tensor:
        """What the smaller share of a foreground class lacks to the larger, of the class that moved
        most: erosion and inflation alike, however rare the class.
        """
        a, c = (counts / counts.sum().clamp(min=1e-12) for counts in (adapted, control))
        low, high = torch.minimum(a, c)[1:], torch.maximum(a, c)[1:]
        return (1 - (low + _RARE) / (high + _RARE)).max()

    def doubt(self, probabilities: Tensor, flipped: Tensor) -> Tensor | None:
        """What Dice between the two masks lacks to 1, over the foreground."""
        return disagreement(probabilities, flipped)

    def mix(self, prediction: Prediction) -> Tensor:
        """(N, 1, C) mean probabilities over all pixels."""
        return prediction.served.detach().float().softmax(1).flatten(2).mean(2)[:, None]

    def kind(self, prediction: Prediction) -> Tensor:
        """(N,) the foreground class with most pixels, 0 where there is none."""
        labels = likeliest(prediction.served.detach()).flatten(1)
        each = labels.new_zeros(len(labels), self.num_classes)
        each.scatter_add_(1, labels, torch.ones_like(labels))
        most, kind = each[:, 1:].max(1)
        return torch.where(most > 0, kind + 1, 0)


def _pixels(maps: Tensor, picked: Tensor | None) -> Tensor:
    """(N·k, channels) of maps (N, channels, *spatial); a view where channels lie last."""
    flat = maps.flatten(2)
    if picked is not None:
        flat = flat.index_select(2, picked)
    return flat.transpose(1, 2).reshape(-1, maps.shape[1])


def _sides(shape: torch.Size) -> str:
    return "×".join(map(str, shape))
