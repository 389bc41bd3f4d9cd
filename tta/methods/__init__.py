"""Adaptation methods: one a file, one entry each in ``METHODS``."""

from typing import Any

from torch import nn

from tta.config import closest
from tta.errors import InputError
from tta.methods.base import Method, MethodConfig, Prediction, Update, UpdateConfig
from tta.methods.dsbr import DSBR
from tta.methods.norm import Norm
from tta.methods.source import Source
from tta.methods.tent import Tent

__all__ = ["METHODS", "Method", "MethodConfig", "Prediction", "Update", "UpdateConfig", "create_method"]

METHODS: dict[str, type[Method]] = {"source": Source, "norm": Norm, "tent": Tent, "dsbr": DSBR}


def create_method(name: str, model: nn.Module, *, num_classes: int, head: str | None = None, **hyperparameters: Any) -> Method:
    """Wrap a source model into an adaptation method.

    Args:
        name: a key of ``METHODS``.
        model: network from images to logits, holding the source's weights; it is adapted in place.
        num_classes: number of classes C.
        head: module whose input counts as features; the last Linear by default.
        **hyperparameters: fields of the method's ``Config``.

    Raises:
        InputError: an unknown method or hyperparameter, a value out of range, or a model that cannot be adapted.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
        >>> method = create_method("tent", model, num_classes=2, lr=0.01)
        >>> method(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: {closest(name, METHODS)}")
    method = METHODS[name]
    known = method.Config.__dataclass_fields__
    for key in hyperparameters:
        if key not in known:
            raise InputError(f"{name} has no hyperparameter {key!r}: {closest(key, known)}")
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes}: adaptation needs at least 2 classes")
    return method(model, num_classes, method.Config(**hyperparameters), head=head)
