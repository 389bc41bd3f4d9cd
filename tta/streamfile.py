"""``stream.ckpt``: where a stream stands, written so that there is always a whole one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.tta.checkpoint import load_file, save_file
from holdfast.tta.errors import InputError
from holdfast.tta.folder import writing
from holdfast.tta.saying import warn

NAME = "stream.ckpt"
_FORMAT = "holdfast-stream"


def save_stream(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint of a stream; the one before stays beside it, ``stream.ckpt.before``.

    Raises:
        WriteError: the disk takes no more; the ones before are whole.
    """
    with writing(path.with_name(f"{path.name}.part")):
        save_file(path, _FORMAT, content, before=before(path))


def load_stream(path: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; None where there is none at all.

    Raises:
        InputError: there are some, and none can be used.
    """
    files = [file for file in (path, before(path)) if file.exists()]
    refused: list[str] = []
    for file in files:
        try:
            content = load_file(file, _FORMAT, "the checkpoint of a stream of this version")
        except InputError as error:
            refused.append(str(error))
            continue
        if refused:
            warn(f"{refused[0]}; the run goes on from the checkpoint before it")
        return content
    if refused:
        raise InputError(
            f"{refused[0]}, and no other checkpoint is left: run again from the start, "
            "overwrite=true"
        )
    return None


def before(path: Path) -> Path:
    """The checkpoint that was the newest until this one was written."""
    return path.with_name(f"{path.name}.before")
