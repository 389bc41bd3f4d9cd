"""Files that grow while a run goes on, and that another run goes on with where they were."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.tta.disk import sync
from holdfast.tta.errors import InputError
from holdfast.tta.folder import write_error


class GrowingFile:
    """A file that grows by whole pieces: of a piece that does not fit on the disk none is left, not
    even in part.

    Args:
        path: the file.
        size: bytes of it that stay, where it is gone on with; None: it is written anew.

    Raises:
        InputError: less of it is left than that.
        WriteError: the disk takes no more.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        self.size = size or 0
        try:
            self._file = path.open("wb" if size is None else "r+b", buffering=0)
            if size is not None:
                self._cut()
        except FileNotFoundError as error:
            if size is None:
                raise write_error(error, path) from error
            raise _gone(path) from error
        except OSError as error:
            raise write_error(error, path) from error

    def append(self, piece: bytes | memoryview, told: str = "") -> None:
        """Add a piece, all or nothing.

        Args:
            piece: bytes.
            told: what the sentence says, a half-sentence, where the disk takes no more.

        Raises:
            WriteError: the disk takes no more, or the file was removed.
        """
        left = memoryview(piece).cast("B")
        size = self.size + len(left)
        try:
            if not os.fstat(self._file.fileno()).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile")
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:  # also an interrupt between two parts
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self.size)
            if isinstance(error, OSError):
                raise write_error(error, self.path, told) from error
            raise
        self.size = size

    def sync(self) -> None:
        """See that what was written outlasts a power cut; the file may be closed.

        Raises:
            WriteError: the disk does not answer, or the file was removed.
        """
        try:
            sync(self.path)
        except OSError as error:
            raise write_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on with the file."""
        return {"size": self.size}

    def _cut(self) -> None:
        """Drop what was written behind the place at which it is gone on."""
        if os.fstat(self._file.fileno()).st_size < self.size:
            self._file.close()
            raise _gone(self.path)
        os.ftruncate(self._file.fileno(), self.size)
        self._file.seek(self.size)


def size_in(state: Mapping[str, Any] | None) -> int | None:
    """The size in the state of a file; None without a state, where it is written anew."""
    return None if state is None else int(state["size"])


def _gone(path: Path) -> InputError:
    return InputError(
        f"{path} is shorter than when the run was stopped, so the run cannot go on with it: put "
        "the file back, or run again, overwrite=true"
    )
