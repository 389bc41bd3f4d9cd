"""A target's labels in the source's terms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from datamodules.images import UNLABELLED, ImageSet
from tta.config import closest
from tta.errors import InputError


def in_classes_of(
    images: ImageSet, names: Sequence[str], classes: Mapping[str, str | None] | None = None
) -> ImageSet:
    """The images with their labels numbered as the source numbers its classes.

    Labels are matched by name; classes without names, which are called 0, 1, …, by number.

    Args:
        images: the target.
        names: of the source's classes.
        classes: the source's name for names of the target; None leaves images of that label unlabelled.

    Raises:
        InputError: a label that is none of the source's, or a mapping from or to a class that does not exist.
    """
    given = dict(classes or {})
    for theirs, ours in given.items():
        if theirs not in images.class_names:
            known = closest(theirs, images.class_names)
            raise InputError(
                f"data.classes maps {theirs!r}, which is none of the target's classes ({known}): write {{theirs: ours}}"
            )
        if ours is not None and ours not in names:
            raise InputError(
                f"data.classes maps {theirs!r} to {ours!r}, which is none of the source's classes ({closest(ours, names)})"
            )
    unnamed = (
        not given
        and all(name.isdecimal() for name in images.class_names)
        and len(images.class_names) <= len(names)
    )
    table, unknown = (
        np.full(len(images.class_names) + 1, UNLABELLED),
        [],
    )  # the last entry stands for -1
    for number, (theirs, count) in enumerate(
        zip(images.class_names, images.counts().tolist(), strict=True)
    ):
        ours = given.get(theirs, theirs)
        if ours in names:
            table[number] = names.index(ours)
        elif unnamed:
            table[number] = number
        elif count and theirs not in given:
            unknown.append(f"{theirs} ({count} images)")
    if unknown:
        raise InputError(
            f"the target's {', '.join(unknown)} cannot be mapped to the source's classes ({', '.join(names)}): "
            "say which they are, data.classes={theirs: ours}, or leave them unlabelled, {theirs: null}"
        )
    return replace(images, labels=table[images.labels], class_names=tuple(names))
