"""Which mask belongs to which image, where a folder ``images`` has a folder ``masks`` beside it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.decoding import SUFFIXES
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.rows import text
from holdfast.tta.errors import InputError

IMAGES, MASKS = "images", "masks"
#: What the two folders may be called.
_KINDS = {IMAGES: IMAGES, "image": IMAGES, MASKS: MASKS, "mask": MASKS}
_SPLITS = ("train", "val", "test")
#: What the names of masks end with, where they are not their images'.
_ENDINGS = re.compile(r"[._-](mask|seg|segmentation|label|labels|gt|annotation|manual\d?)$", re.I)


@dataclass(frozen=True)
class Pairs:
    """Images, and their masks.

    Args:
        images: (N,) paths below the root.
        masks: of them.
        splits: (N,) of train, val and test; None: folders are no splits.
        folders: (N,) the folder between ``images`` and the image, empty where there is none.
        notes: on what has no partner.
    """

    images: Strings
    masks: MaskPaths
    splits: Strings | None
    folders: Strings
    notes: tuple[str, ...] = ()


def are_pairs(files: Sequence[str]) -> bool:
    """Whether a folder has images and masks side by side."""
    tops = {_KINDS.get(part) for file in files for part in file.split("/")[:-1][:2]}
    return {IMAGES, MASKS} <= tops


def paired(files: Sequence[str], root: Path) -> Pairs:
    """Match images and masks by their names, with or without an ending such as ``_mask``.

    Splits are folders above or below ``images`` and ``masks``. Masks are maps of all classes, or
    lie in a folder for each class, ``masks/CLASS/NAME.png``.

    Args:
        files: paths below the root.
        root: for messages.

    Raises:
        InputError: no mask has an image's name, or two have.
    """
    found: dict[str, dict[tuple[str, str], str]] = {IMAGES: {}, MASKS: {}}
    for file in files:
        kind, split, name = _parted(file)
        if kind in found:
            found[kind][split, _key(name)] = file
    images, masks = found[IMAGES], found[MASKS]
    maps, taken = _matched(images, masks, root)
    structures: tuple[str, ...] = ()
    if not maps:
        maps, structures, taken = _by_class(images, masks, root)
    width = max(len(structures), 1)
    table = np.array(
        [maps.get(key, [""] * width) for key in images], dtype=np.dtypes.StringDType()
    ).reshape(len(images), width)
    splits = [split for split, _ in images]
    return Pairs(
        text(images.values()),
        MaskPaths(table, structures),
        text(splits) if all(splits) else None,
        text(key.rsplit("/", 1)[0] if "/" in key else "" for _, key in images),
        (
            *_alone(images, maps, "images have no mask"),
            *_alone(masks, taken, "masks have no image"),
        ),
    )


def _parted(file: str) -> tuple[str, str, str]:
    """Which of the two folders a file lies in, its split, and its name below them."""
    parts = file.split("/")
    split = ""
    if parts[0] in _SPLITS:
        split, parts = parts[0], parts[1:]
    kind, rest = _KINDS.get(parts[0], ""), parts[1:]
    if not split and len(rest) > 1 and rest[0] in _SPLITS:
        split, rest = rest[0], rest[1:]
    return kind, split, "/".join(rest)


def _key(name: str) -> str:
    """A name without the suffix of its kind of file."""
    lower = name.lower()
    ending = max((end for end in SUFFIXES if lower.endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)]


def _matched(
    images: Mapping[tuple[str, str], str], masks: Mapping[tuple[str, str], str], root: Path
) -> tuple[dict[tuple[str, str], list[str]], set[tuple[str, str]]]:
    """The mask of each image that has one, and the masks that are some image's."""
    result: dict[tuple[str, str], list[str]] = {}
    taken = set()
    for (split, name), file in masks.items():
        key = (split, name)
        if key not in images:
            key = (split, _ENDINGS.sub("", name))
        if key not in images:
            continue
        if key in result:
            raise InputError(
                f"{root} has two masks for {images[key]}, {result[key][0]} and {file}: keep one, "
                "or give each class a folder of its own, masks/CLASS"
            )
        result[key] = [file]
        taken.add((split, name))
    return result, taken


def _by_class(
    images: Mapping[tuple[str, str], str], masks: Mapping[tuple[str, str], str], root: Path
) -> tuple[dict[tuple[str, str], list[str]], tuple[str, ...], set[tuple[str, str]]]:
    """The files of each class, of each image that has one."""
    classes = sorted({name.split("/")[0] for _, name in masks if "/" in name})
    result: dict[tuple[str, str], list[str]] = {}
    taken = set()
    for place, structure in enumerate(classes):
        inner = {
            (split, name.partition("/")[2]): file
            for (split, name), file in masks.items()
            if name.startswith(f"{structure}/")
        }
        of_class, used = _matched(images, inner, root)
        for key, files in of_class.items():
            result.setdefault(key, [""] * len(classes))[place] = files[0]
        taken |= {(split, f"{structure}/{name}") for split, name in used}
    if not result:
        raise InputError(
            f"{root}: no mask is called as an image is (as {next(iter(images.values()), 'none')} "
            f"and {next(iter(masks.values()), 'none')}): name masks/NAME as images/NAME, or write "
            "a table with columns path and mask"
        )
    return result, tuple(classes), taken


def _alone(
    files: Mapping[tuple[str, str], str], partners: Iterable[tuple[str, str]], what: str
) -> tuple[str, ...]:
    alone = [file for key, file in files.items() if key not in set(partners)]
    return (f"{len(alone)} {what}, the first {alone[0]}",) if alone else ()
