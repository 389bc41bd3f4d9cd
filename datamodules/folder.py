"""A folder of image files: a folder for each class, or one without labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.pairs import are_pairs, paired
from holdfast.datamodules.records import Records, images_of, repeated, text
from holdfast.datamodules.settings import FilesConfig
from holdfast.datamodules.splits import FOLDER
from holdfast.datamodules.walk import searched
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_SPLITS = ("train", "val", "test")


@dataclass
class FolderConfig(FilesConfig):
    """A folder for each class, images without labels, or folders images and masks; any of them
    within folders train, val and test, or not.
    """

    root: str | None = option(None, "the folder")
    folders: Literal["classes", "groups"] = option(
        "classes", "what folders are: classes, or groups (patients) without labels"
    )
    target: str | None = option(
        None,
        "folder of the target stream, all its images or those of its test; null: that of data.root",
    )


def load_folder(config: FolderConfig, split: Split) -> ImageSet:
    """Read a split.

    Raises:
        InputError: no such folder, no images, or what ``images_of`` raises.
    """
    place = config.target if split == "target" and config.target is not None else config.root
    if place is None:
        raise InputError("data.root is missing: name the folder, data.root=DIR")
    if place is config.target:
        config = replace(config, shares=None)  # the stream is the whole folder
    return images_of(records_of(Path(place).expanduser(), config.folders), config, split)


def records_of(root: Path, folders: str = "classes") -> Records:
    """The images below a folder, in the order of their names.

    Folders train, val and test are splits. Below them, or below the root, folders are classes, or
    groups of images without labels. Folders below classes are the column ``folder``, for they may
    be patients. Folders ``images`` and ``masks`` are pairs (``pairs.paired``).
    """
    files, notes = searched(root)
    if are_pairs(files):
        return _with_masks(files, notes, root, folders)
    parts = [file.split("/") for file in files]
    split = all(part[0] in _SPLITS and len(part) > 1 for part in parts)
    inner = [part[1:] if split else part for part in parts]
    loose = sum(len(part) == 1 for part in inner)
    if 0 < loose < len(inner):
        raise InputError(
            f"{root} has {loose} image(s) beside its class folders: move them into one, or all out "
            "of them"
        )
    folder, empty = text("" if loose else part[0] for part in inner), repeated("", len(files))
    return Records(
        origin=root,
        root=root,
        paths=text(files),
        labels=folder if folders == "classes" else empty,
        domains=repeated(root.resolve().name, len(files)),
        groups=folder if folders == "groups" else empty,
        splits=text(part[0] for part in parts) if split else None,
        metadata=_below(inner) if folders == "classes" else {},
        notes=notes,
    )


def _with_masks(files: list[str], notes: tuple[str, ...], root: Path, folders: str) -> Records:
    pairs = paired(files, root)
    count = len(pairs.images)
    own = folders == "groups"
    return Records(
        origin=root,
        root=root,
        paths=pairs.images,
        labels=repeated("", count),
        domains=repeated(root.resolve().name, count),
        groups=pairs.folders if own else repeated("", count),
        splits=pairs.splits,
        metadata={FOLDER: pairs.folders} if (pairs.folders != "").any() and not own else {},
        masks=pairs.masks,
        notes=(*notes, *pairs.notes),
    )


def _below(parts: list[list[str]]) -> dict[str, Strings]:
    """The folders between class and image, which may be patients, where a class has several."""
    pairs = {(part[0], part[1]) for part in parts if len(part) > 2}
    if len(pairs) <= len({name for name, _ in pairs}):
        return {}
    return {FOLDER: text(part[1] if len(part) > 2 else "" for part in parts)}
