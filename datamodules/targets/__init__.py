"""Targets: what is known of an image beside its pixels; one kind a file, one entry each."""

from collections.abc import Callable
from typing import Any

from holdfast.datamodules.targets.base import (
    AskedOfArrays,
    AskedOfRecords,
    Read,
    Target,
)
from holdfast.datamodules.targets.findings import FindingTarget
from holdfast.datamodules.targets.labels import LabelTarget
from holdfast.datamodules.targets.masks import MaskTarget
from holdfast.tta.errors import InputError
from holdfast.tta.registry import Registry, subclasses_of
from holdfast.tta.tasks import TASKS

__all__ = [
    "TARGETS",
    "AskedOfArrays",
    "AskedOfRecords",
    "FindingTarget",
    "LabelTarget",
    "MaskTarget",
    "Read",
    "Target",
    "kind_of",
    "register_target",
    "usual_task",
]

_OURS: dict[str, type[Target]] = {
    kind.key: kind for kind in (LabelTarget, MaskTarget, FindingTarget)
}


def _check_target(name: str, entry: Any) -> None:
    """Let in subclasses of ``Target`` under their own key."""
    subclasses_of(Target)(name, entry)  # type: ignore[type-abstract]
    if entry.key != name:
        raise InputError(
            f"{entry.__name__} stands in a batch under {entry.key!r}: register it as that, or give "
            f"it key={name!r}"
        )


#: Kinds of target by the key of a batch under which they stand, as ``Task.target`` names it: ours,
#: registered ones, and entry points of the group ``holdfast.targets``.
TARGETS: Registry[type[Target]] = Registry(
    "target",
    "holdfast.targets",
    _OURS,
    _check_target,
)
register_target = TARGETS.register


def kind_of(task: str) -> type[Target]:
    """The kind of target that a task asks for.

    Raises:
        InputError: there is no such task, or nobody has registered its kind of target.

    Example:
        >>> kind_of("multilabel").__name__
        'FindingTarget'
    """
    TASKS.refuse_unknown(task)
    key = TASKS[task].target
    TARGETS.refuse_unknown(key)
    return TARGETS[key]


def usual_task(has: Callable[[type[Target]], bool]) -> str:
    """The task that is meant where nobody names one; those that others bring must be named.

    Args:
        has: whether the data have a kind of target.

    Example:
        >>> usual_task(lambda kind: kind is MaskTarget)
        'segmentation'
    """
    found = (kind.usual for kind in _OURS.values() if kind is not LabelTarget and has(kind))
    return next(found, LabelTarget.usual)
