"""What networks answer, as logits of C classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tta.errors import InputError

#: By how much the sum of probabilities of 16 bits may differ from 1.
_ROUNDING = 1e-2


def check_width(head: nn.Module, name: str, num_classes: int, *, one_for_two: bool = True) -> None:
    """Refuse a classifier that tells another number of classes apart; one output serves for two.

    Args:
        head: the classifier, or the module that is taken for it.
        name: its name in the network.
        num_classes: C.
        one_for_two: whether one output stands for two classes.

    Raises:
        InputError: it is linear, and has another width.
    """
    width = head.out_features if isinstance(head, nn.Linear) else num_classes
    if width != num_classes and not (one_for_two and (width, num_classes) == (1, 2)):
        remedy = (
            f"num_classes={max(width, 2 if one_for_two else 1)}"
            if width > 0
            else "a network with a classifier"
        )
        raise InputError(
            f"{name!r}, taken for the classifier, has {width} output(s), and "
            f"num_classes={num_classes}: give {remedy}, or "
            "the name of the layer whose input counts as features, head=NAME"
        )


def as_logits(output: Any, num_classes: int) -> Tensor:
    """The logits (N, C) in what a network answers.

    A tuple, list or dictionary gives its first tensor of that shape. One logit z, (N,) or (N, 1),
    is that of the second of two classes: the first has 0, and softmax of both is the sigmoid of z.

    Args:
        output: a tensor, or tensors in a tuple, list or dictionary.
        num_classes: C.

    Raises:
        InputError: there are no such logits.
    """
    tensors = list(_tensors(output))
    for tensor in tensors:
        if tensor.dim() == 2 and tensor.shape[1] == num_classes:
            return tensor
    for tensor in tensors if num_classes == 2 else []:
        if tensor.dim() == 1 or tensor.shape[1:] == (1,):
            one = tensor.reshape(-1, 1)
            return torch.cat([torch.zeros_like(one), one], 1)
    remedy = (
        "give num_classes as the network has them, or a module whose forward returns its logits"
    )
    if any(tensor.dim() > 2 and tensor.shape[1] in (1, num_classes) for tensor in tensors):
        remedy = "an answer for each pixel is task=segmentation"
    raise _unfit(output, tensors, f"logits of shape (images, {num_classes})", remedy)


def as_maps(output: Any, num_classes: int) -> Tensor:
    """The logits (N, C, *spatial) in what a segmentation network answers.

    A tuple, list or dictionary gives its first tensor of that shape, which is the finest where a
    network answers at several scales. Of two classes one logit will do, as in ``as_logits``.

    Args:
        output: a tensor, or tensors in a tuple, list or dictionary.
        num_classes: C.

    Raises:
        InputError: there are no such logits.
    """
    tensors = list(_tensors(output))
    maps = [tensor for tensor in tensors if tensor.dim() > 2]
    for tensor in maps:
        if tensor.shape[1] == num_classes:
            return tensor
    for tensor in maps if num_classes == 2 else []:
        if tensor.shape[1] == 1:
            return torch.cat([torch.zeros_like(tensor), tensor], 1)
    remedy = "give num_classes as the network has them, the background among them"
    if any(tensor.dim() == 2 for tensor in tensors):
        remedy = "one answer for each image is task=single or task=multilabel"
    wanted = f"logits of shape (images, {num_classes}, height, width, …)"
    raise _unfit(output, tensors, wanted, remedy)


def as_columns(output: Any, num_findings: int) -> Tensor:
    """The logits (N, L) of findings in what a network answers.

    Args:
        output: a tensor, or tensors in a tuple, list or dictionary.
        num_findings: L.

    Raises:
        InputError: there are no such logits.
    """
    tensors = list(_tensors(output))
    for tensor in tensors:
        if tensor.dim() == 2 and tensor.shape[1] == num_findings:
            return tensor
    remedy = "give num_classes as the network has findings, one logit for each"
    raise _unfit(output, tensors, f"logits of shape (images, {num_findings})", remedy)


def refuse_probabilities(output: Tensor) -> None:
    """Refuse what a softmax has been through: it has another entropy, and little gradient.

    Args:
        output: (N, K) or (N, K, *spatial), taken for logits.

    Raises:
        InputError: none is negative, and each row's sum is 1.
    """
    sums = output.detach().float().sum(1)
    # One row may do so by chance; what is not finite is no probability, and has its own sentence.
    if sums.numel() < 2 or output.min() < 0 or not (sums - 1).abs().max() <= _ROUNDING:
        return
    raise InputError(
        "the network answers with probabilities (none is negative, and each row's sum is 1) where "
        "logits belong: leave out its softmax"
    )


def _unfit(output: Any, tensors: Sequence[Tensor], wanted: str, remedy: str) -> InputError:
    found = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensor"
    return InputError(
        f"the network answers with {type(output).__name__} ({found}), which holds no {wanted}: "
        f"{remedy}"
    )


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from (value for value in output.values() if isinstance(value, Tensor))
    elif isinstance(output, (tuple, list)):
        yield from (value for value in output if isinstance(value, Tensor))
