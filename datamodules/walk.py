"""Which files below a folder are images."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from holdfast.datamodules.decoding import SUFFIXES, is_dicom
from holdfast.datamodules.formats.foreign import what_it_is
from holdfast.datamodules.paths import is_below
from holdfast.tta.errors import InputError, said

_log = logging.getLogger(__name__)

#: What macOS, Windows and PACS exports leave beside images; also all that begins with ``._``.
_LEFTOVERS = {".ds_store", "__macosx", "thumbs.db", "desktop.ini", "dicomdir"}
#: Files by which the folder of a run is known: the first, and one of the others.
_LEFT_BY_A_RUN = ("config.yaml", "trace.csv", "source.ckpt")
#: A run's picture, where its folder is that of the images.
_PICTURE = "trajectory.png"
_SHOWN = 5  # kinds of files that a warning lists


def image_files(root: Path) -> list[str]:
    """Paths of all image files below a folder, relative to it, sorted; others are counted in a
    warning.
    """
    found, notes = searched(root)
    for note in notes:
        _log.warning("%s: %s", root, note)
    return found


def searched(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """Paths of all image files below a folder, relative to it, sorted, and notes on the other
    files.

    A file without a known suffix is an image if it bears DICOM's mark. Links to folders are
    followed within the root, each folder once.

    Raises:
        InputError: no such folder, no image in it, a link that leaves it, or a name that is no
            text.
    """
    if not root.is_dir():
        raise InputError(f"the folder {root} does not exist: check data.root and data.target")
    found: list[str] = []
    kinds, others, example = Counter[str](), Counter[str](), ""
    for name, entry in _walk(root):
        kind = _kind_of(entry)
        kinds[kind] += 1
        if kind == "image":
            found.append(name)
        elif kind == "other":
            others[os.path.splitext(entry.name)[1] or "no suffix"] += 1
            if not example and entry.is_file():
                example = f" ({name} {what_it_is(Path(entry.path))})"
    notes = []
    if others:
        shown = ", ".join(f"{count} {kind}" for kind, count in others.most_common(_SHOWN))
        notes.append(f"files that are no images are left out ({shown})")
    if kinds["leftover"]:
        notes.append(f"{kinds['leftover']} leftover(s) of macOS, Windows or an export left out")
    if kinds["run"]:
        notes.append(f"{kinds['run']} folder(s) with the results of a run left out")
    if not found:
        raise InputError(
            f"{root} has no image files: expected {', '.join(SUFFIXES)}, or DICOM files without a "
            f"suffix, in it or in class folders{example}"
        )
    _refuse_odd_names(root, found)
    return sorted(found), tuple(notes)


def found_below(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Image files below a folder as they are now, by their paths relative to it; names that no
    table could hold are left out.
    """
    for name, entry in _walk(root):
        if _is_text(name) and not _is_leftover(entry.name) and _is_image(entry):
            yield name, entry


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What lies below a folder, but folders: links come last, so that each is found where it is."""
    real_root = os.path.realpath(root)
    seen = set()
    folders, links = [""], list[str]()
    while folders or links:
        below = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(os.path.join(real_root, below))
        if real != real_root and not is_below(real_root, real):
            raise InputError(
                f"{below} in {root} is a link to {real}: only what lies below the folder is read, "
                "so "
                "copy it there, or name another folder"
            )
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(real):
            if entry.name == _PICTURE and _is_run(real):
                continue
            name = f"{below}/{entry.name}" if below else entry.name
            if not entry.is_dir() or _is_leftover(entry.name) or _is_run(entry.path):
                yield name, entry
            elif not entry.name.startswith("."):
                (links if entry.is_symlink() else folders).append(name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({said(error)})") from error


def _kind_of(entry: os.DirEntry[str]) -> str:
    """What a walk found: an image, a leftover, a run's folder, what is hidden, or another file."""
    if _is_leftover(entry.name):
        return "leftover"
    if entry.is_dir():
        return "run"
    if _is_image(entry):
        return "image"
    return "hidden" if entry.name.startswith(".") else "other"


def _is_run(folder: str) -> bool:
    """Whether a folder is what a run of ours left, whose pictures are no images."""
    holds = [os.path.isfile(os.path.join(folder, name)) for name in _LEFT_BY_A_RUN]
    return holds[0] and any(holds[1:])


def _is_leftover(name: str) -> bool:
    return name.startswith("._") or name.lower() in _LEFTOVERS


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is an image by its name, or DICOM by its first bytes."""
    if entry.name.startswith("."):
        return False
    if entry.name.lower().endswith(SUFFIXES):
        return True  # also a link that leads nowhere, which is then told of
    try:
        return entry.is_file() and is_dicom(Path(entry.path))
    except OSError:
        return False


def _refuse_odd_names(root: Path, names: list[str]) -> None:
    """Refuse names that no table of results could hold."""
    odd = [name for name in names if not _is_text(name)]
    if odd:
        shown = os.fsencode(odd[0]).decode("utf-8", "backslashreplace")
        raise InputError(
            f"{root} has {len(odd)} file name(s) that are not UTF-8, as {shown}: rename them, as "
            "convmv -f latin1 -t utf8 -r --notest does"
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
