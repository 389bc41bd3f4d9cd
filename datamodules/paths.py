"""Where a file of a data set lies: below its folder, links included, and nowhere else."""

import os
from pathlib import Path

from holdfast.datamodules.decoding import Unreadable
from holdfast.tta.errors import InputError, said


def inside(root: str, name: str) -> Path:
    """The file, or folder of a DICOM series, of a name; links are followed within the root.

    Args:
        root: the data set's folder, without links in it.
        name: relative to it.

    Raises:
        Unreadable: there can be no such file.
        InputError: it, or what the folder holds, lies outside the root.
    """
    if "\0" in name:
        raise Unreadable("has a NUL in its path, which no file has")
    path = os.path.join(root, name)
    if os.path.islink(path) and not os.path.exists(path):
        raise Unreadable("is a link to a file that does not exist")
    real = os.path.realpath(path)
    held: list[str] = []
    try:
        if os.path.isdir(real):
            held = [os.path.realpath(entry.path) for entry in os.scandir(real)]
    except OSError as error:
        raise Unreadable(f"cannot be read ({said(error)})") from error
    if not all(is_below(root, place) for place in (real, *held)):
        raise InputError(f"{name} lies outside {root}: only files below the data's folder are read")
    return Path(real)


def is_below(root: str, path: str) -> bool:
    """Whether a path lies below a folder, both without links in them."""
    return path.startswith(os.path.join(root, ""))
