"""What a stream's batch holds, in whichever form a loader gives it: the one place that reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.distributed import place
from holdfast.tta.errors import InputError

#: Keys of a dictionary, the first one that is there counts: ours and MONAI's, then others'.
_IMAGES = ("image", "images", "x", "input", "inputs", "pixel_values")
_LABELS = ("label", "labels", "y", "target", "targets")
#: Stands for a label that is not known.
_UNKNOWN = -1


@dataclass(frozen=True)
class Described:
    """What is known of the images of a batch, besides their pixels.

    Attributes:
        ids: (N,) name of each; its position in the stream where it has none.
        index: (N,) number of each; its position where it has none.
        labels: (N,) true classes, -1 where unknown; for figures alone.
        domains: (N,) where each is from; empty where that is not known.
    """

    ids: list[str]
    index: Tensor
    labels: Tensor
    domains: list[str]


def images_of(batch: Any) -> Tensor:
    """The images (N, channels, ...) of a batch.

    Args:
        batch: a dictionary with ``image``, a tuple ``(images, labels)``, or the images alone.

    Raises:
        InputError: it is none of these, has no image, or the images are integers.

    Example:
        >>> images_of((torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))).shape
        torch.Size([2, 1, 8, 8])
    """
    found = batch
    if isinstance(batch, Mapping):
        found = _first(batch, _IMAGES)
    elif isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch):
        found = batch[0]
    if not isinstance(found, Tensor):
        form = f"keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else "other parts"
        raise InputError(
            "a batch is a dictionary with 'image', a tuple (images, labels) or a tensor of images, "
            f"and this {type(batch).__name__} has {form}: bring it to one of these, or override "
            "images_of"
        )
    if not found.is_floating_point():
        raise InputError(
            f"images are {str(found.dtype).removeprefix('torch.')}: turn them into floats in the "
            "range that the network was trained on"
        )
    if not len(found):
        raise InputError("a batch has no image: leave it out, or give one or more")
    # MONAI's tensors carry metadata through each operation of the network.
    return found if type(found) is Tensor else found.as_subclass(Tensor)


def check_computable(images: Tensor, network: nn.Module) -> None:
    """Refuse images of a kind of number that a network cannot take.

    Raises:
        InputError: theirs is another than its weights', and nothing converts between them.
    """
    weights = next(network.parameters()).dtype
    if images.dtype == weights or torch.is_autocast_enabled(images.device.type):
        return
    given, wanted = (str(kind).removeprefix("torch.") for kind in (images.dtype, weights))
    raise InputError(
        f"images are {given}, and the network computes in {wanted}: give images.to(torch.{wanted})"
    )


def described(batch: Any, count: int, first: int = 0) -> Described:
    """What a batch says of its images; what it does not say follows from their position.

    Args:
        batch: in any form that ``images_of`` knows, or another: then nothing is known.
        count: N, of this process's share.
        first: how many images this process had before.

    Example:
        >>> described((torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])), count=2, first=64).ids
        ['64', '65']
    """
    given = batch if isinstance(batch, Mapping) else {}
    ids, index, domains = given.get("id"), given.get("index"), given.get("domain")
    if ids is None or index is None:
        rank, processes = place()
        positions = torch.arange(first, first + count) * processes + rank
        ids = positions if ids is None else ids
        index = positions if index is None else index
    if isinstance(ids, Tensor):
        ids = ids.tolist()
    return Described(
        [str(name) for name in ids],
        index,
        _labels(batch, count),
        [""] * count if domains is None else list(domains),
    )


def truth_of(batch: Any, name: str, count: int) -> Tensor | None:
    """What is known to be true of a batch's images, for figures alone.

    Args:
        batch: in any form.
        name: of what a task asks for: label, mask or findings.
        count: N.

    Returns:
        ``Described.labels``, masks (N, *spatial) of integers, -1 where unknown, or findings (N, L),
        NaN where unknown; None: there is none.

    Example:
        >>> truth_of((torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)), "mask", 1).shape
        torch.Size([1, 2, 2])
    """
    if name == "label":
        return _labels(batch, count)
    found = None
    if isinstance(batch, Mapping):
        found = _first(batch, (name, f"{name}s", *_LABELS))
    elif isinstance(batch, Sequence) and len(batch) > 1:
        found = batch[1]
    if not isinstance(found, Tensor) or len(found) != count or found.dim() < 2:
        return None
    found = found.as_subclass(Tensor)
    if name == "findings":
        return found.float()
    images = images_of(batch)
    return (found.squeeze(1) if found.dim() == images.dim() else found).round().long()


def _labels(batch: Any, count: int) -> Tensor:
    """(N,) true classes; what is no number an image (a mask, say) is no label."""
    found = None
    if isinstance(batch, Mapping):
        found = _first(batch, _LABELS)
    elif isinstance(batch, Sequence) and len(batch) > 1:
        found = batch[1]
    if not isinstance(found, Tensor) or found.numel() != count or len(found) != count:
        return torch.full((count,), _UNKNOWN)
    labels = found.as_subclass(Tensor).reshape(-1)
    if labels.is_floating_point():  # of a loss that wants them so
        labels = torch.where(labels == labels.round(), labels, _UNKNOWN)
    return labels.long()


def _first(batch: Mapping[Any, Any], names: Sequence[str]) -> Any:
    return next((batch[name] for name in names if name in batch), None)
