"""A target's labels in the source's terms."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.labels import number_of, same
from holdfast.datamodules.targets import kind_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

#: Classes that an example of ``data.classes`` spells out.
_SHOWN = 6


def in_classes_of(
    images: ImageSet,
    names: Sequence[str],
    classes: Mapping[str, str | None] | None = None,
    task: str = "single",
) -> ImageSet:
    """The images with their labels numbered as the source numbers its classes; likewise masks, and
    findings in the source's order.

    Labels are matched by name, and numbers by their value. A number is never matched to a name:
    which class it counts is known to nobody, since the source's are in alphabetical order.

    Args:
        images: the target.
        names: of the source's classes.
        classes: the source's name for names of the target; None leaves images of that label
            unlabelled.
        task: of the source; images of another of which nothing is known are taken for its.

    Raises:
        InputError: a label that is none of the source's, a mapping from or to a class that does
            not exist, or images of another task.
    """
    images = _of_task(images, task)
    if classes and images.labelled:
        _check_mapping(classes, images.class_names, names)
    table, strange = _numbers(images.class_names, names, classes or {})
    target, notes = images.target, images.notes
    counts = target.counts().tolist() if strange and images.labelled else [0] * len(table)
    unknown = {name: counts[number] for name, number in strange.items() if counts[number]}
    if unknown and not target.lenient:
        raise InputError(_refusal(unknown, names))
    if unknown:
        left = ", ".join(unknown)
        notes = (*notes, f"{target.names_are} that the source does not know are left out: {left}")
    return replace(images, target=target.numbered(table, tuple(names)), notes=notes)


def _numbers(
    theirs: Sequence[str], ours: Sequence[str], classes: Mapping[str, str | None]
) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """The source's number of each class of the target, and the classes of which nothing is said.

    Args:
        theirs: names of the target's classes.
        ours: of the source's.
        classes: see ``in_classes_of``.

    Returns:
        (C+1,) numbers, -1 where there is none, as in the last, which stands for -1; and by name
        the target's numbers of classes that are neither the source's nor mapped.
    """
    places = {same(name): place for place, name in enumerate(ours)}
    given = {same(name): our for name, our in classes.items()}
    table, strange = np.full(len(theirs) + 1, UNLABELLED), {}
    for number, name in enumerate(theirs):
        key: Any = same(name)
        our = given.get(key, name)
        if our is not None and same(our) in places:
            table[number] = places[same(our)]
        elif key not in given:
            strange[name] = number
    return table, strange


def _of_task(images: ImageSet, task: str) -> ImageSet:
    """The images as the source's task has them: what is known of them, if it asks for that kind,
    or else nothing.
    """
    kind = kind_of(task)
    if images.target.key == kind.key:
        return replace(images, task=task)
    if images.labelled:
        raise InputError(
            f"the source is a model of task {task}, and the target has what {images.task} asks "
            f"for: read it with data.task={task}, or without its labels"
        )
    return replace(images, task=task, target=kind.of_nothing(len(images)))


def _check_mapping(
    classes: Mapping[str, str | None], known: Sequence[str], names: Sequence[str]
) -> None:
    theirs, ours = {same(name) for name in known}, {same(name) for name in names}
    for name, our in classes.items():
        if same(name) not in theirs:
            raise InputError(
                f"data.classes maps {name!r}, which is none of the target's classes "
                f"({closest(name, known)}): write {{theirs: ours}}"
            )
        if our is not None and same(our) not in ours:
            raise InputError(
                f"data.classes maps {name!r} to {our!r}, which is none of the source's classes "
                f"({closest(our, names)})"
            )


def _refusal(unknown: Mapping[str, int], names: Sequence[str]) -> str:
    """Why labels cannot be mapped, and how they can."""
    counted = ", ".join(f"{name} ({count} images)" for name, count in unknown.items())
    theirs, ours = ([number_of(name) is None for name in part] for part in (unknown, names))
    if any(theirs) == any(ours):
        return (
            f"the target's {counted} cannot be mapped to the source's classes "
            f"({', '.join(names)}): "
            "say which they are, 'data.classes={theirs: ours}', or leave them unlabelled, {theirs: "
            "null}"
        )
    kinds = ("names", "numbers") if any(theirs) else ("numbers", "names")
    pairs = [f"{_quoted(name)}: {_quoted(our)}" for name, our in zip(unknown, names, strict=False)]
    pairs = [*pairs[:_SHOWN], *(["…"] if len(unknown) > min(len(pairs), _SHOWN) else [])]
    return (
        f"the target's labels, {counted}, are {kinds[0]}, and the source's classes, "
        f"{', '.join(names)}, {kinds[1]}: say which is which, "
        f"'data.classes={{{', '.join(pairs)}}}', or "
        "in whichever order is theirs"
    )


def _quoted(name: str) -> str:
    """A name as YAML takes it between braces."""
    return name if re.fullmatch(r"\w[\w ./-]*", name) else json.dumps(name, ensure_ascii=False)
