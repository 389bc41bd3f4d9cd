"""Tasks: what a network's answer to an image means; one a file, one entry each in ``TASKS``."""

from collections.abc import Mapping
from typing import Any

from holdfast.tta.errors import InputError
from holdfast.tta.registry import Registry, subclasses_of
from holdfast.tta.tasks.base import Task, described_task
from holdfast.tta.tasks.kept import Kept, Scorer
from holdfast.tta.tasks.multilabel import Multilabel
from holdfast.tta.tasks.segmentation import Segmentation
from holdfast.tta.tasks.single import Single

__all__ = [
    "OURS",
    "TASKS",
    "Kept",
    "Multilabel",
    "Scorer",
    "Segmentation",
    "Single",
    "Task",
    "create_task",
    "register_task",
    "task_of",
]

#: The tasks that we bring.
OURS: dict[str, type[Task]] = {
    "single": Single,
    "segmentation": Segmentation,
    "multilabel": Multilabel,
}

#: Tasks by name: ours, registered ones, and entry points of the group ``holdfast.tasks``.
TASKS: Registry[type[Task]] = Registry("task", "holdfast.tasks", OURS, subclasses_of(Task))  # type: ignore[type-abstract]
register_task = TASKS.register


def create_task(task: str | Task | type[Task], num_classes: int, **options: Any) -> Task:
    """A task of so many classes or findings.

    Args:
        task: a key of ``TASKS``, a task's class, or a task, which is returned as it is.
        num_classes: number of names that the data give.
        **options: of the task.

    Raises:
        InputError: an unknown task or option, or a task of another number of classes.

    Example:
        >>> create_task("multilabel", 14).cells
        28
    """
    if isinstance(task, Task):
        if task.num_classes != num_classes:
            raise InputError(
                f"the task has {task.num_classes} classes, and num_classes={num_classes}: give "
                "both the same"
            )
        return task
    if isinstance(task, str):
        TASKS.refuse_unknown(task)
        return TASKS[task](num_classes, **options)
    if not isinstance(task, type) or not issubclass(task, Task):
        raise InputError(f"a task is a name such as segmentation, or a class of one, not {task!r}")
    return task(num_classes, **options)


def task_of(description: Mapping[str, Any] | None, num_classes: int) -> Task:
    """The task that a checkpoint describes; files from before tasks are of one label an image."""
    name, options = described_task(description)
    return create_task(name, num_classes, **options)
