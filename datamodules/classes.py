"""A target's labels in the source's terms."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.datamodules.images import UNLABELLED, ImageSet
from holdfast.datamodules.labels import number_of, same
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

#: Classes that an example of ``data.classes`` spells out.
_SHOWN = 6


def in_classes_of(
    images: ImageSet, names: Sequence[str], classes: Mapping[str, str | None] | None = None
) -> ImageSet:
    """The images with their labels numbered as the source numbers its classes.

    Labels are matched by name, and numbers by their value. A number is never matched to a name:
    which class it counts is known to nobody, since the source's are in alphabetical order.

    Args:
        images: the target.
        names: of the source's classes.
        classes: the source's name for names of the target; None leaves images of that label
            unlabelled.

    Raises:
        InputError: a label that is none of the source's, or a mapping from or to a class that does
            not exist.
    """
    ours = {same(name): place for place, name in enumerate(names)}
    given = {same(theirs): our for theirs, our in (classes or {}).items()}
    if classes and images.labelled:
        _check_mapping(classes, images.class_names, names)
    # The last entry stands for -1.
    table = np.full(len(images.class_names) + 1, UNLABELLED)
    unknown: dict[str, int] = {}
    for number, name in enumerate(images.class_names):
        key: Any = same(name)
        our = given.get(key, name)
        count = int((images.labels == number).sum())
        if our is not None and same(our) in ours:
            table[number] = ours[same(our)]
        elif key not in given and count:
            unknown[name] = count
    if unknown:
        raise InputError(_refusal(unknown, names))
    return replace(images, labels=table[images.labels], class_names=tuple(names))


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
