"""A tracker that dies, or whose disk takes no more, and a run that goes on without it."""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any

from holdfast.tta.errors import said
from holdfast.tta.saying import warn

#: What a connection raises whose other end is gone; a full disk is such an error too.
_GONE = (OSError, EOFError)
#: Bytes without which a disk is full: the block in which file systems give out room.
_BLOCK = 4096


class Surviving:
    """A tracker's object whose calls never end the run: where the tracker is gone, one warning says
    so, and further calls come to nothing.

    Args:
        inner: the object, or a part of it.
        whole: the one that it is a part of.
        folder: where another process writes what it is told, and says nothing of its failures.
    """

    def __init__(
        self, inner: Any, whole: "Surviving | None" = None, folder: Path | None = None
    ) -> None:
        self._inner, self._whole, self._lost = inner, whole or self, False
        self._folder = folder

    @property
    def lost(self) -> bool:
        """Whether the tracker is gone."""
        return self._whole._lost

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if callable(value) and not isinstance(value, type):
            return lambda *words, **more: self._call(value, *words, **more)
        if hasattr(value, "update"):  # a summary or configuration, which writes as well
            return Surviving(value, self._whole)
        return value

    def heed(self, log: logging.Logger) -> None:
        """Take a log that the tracker cannot write for a sign of its disk, and nothing to show."""

        def failed(record: logging.LogRecord) -> None:
            error = sys.exc_info()[1]
            if isinstance(error, OSError):
                self._lose(error)

        for handler in log.handlers:
            handler.handleError = failed  # type: ignore[method-assign]

    def _call(self, call: Any, *words: Any, **more: Any) -> Any:
        whole = self._whole
        if whole._lost:
            return None
        try:
            result = call(*words, **more)
            if whole._folder is not None:
                _check_disk(whole._folder)
        except _GONE as error:
            whole._lose(error)
            return None
        return result

    def _lose(self, error: BaseException) -> None:
        if not self._lost:
            self._lost = True
            warn(f"W&B takes no more ({said(error)}): the run goes on without it")


def _check_disk(folder: Path) -> None:
    """Raise what whoever writes there is told."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "its disk is read-only")
    if disk.f_bavail * disk.f_frsize < _BLOCK:
        raise OSError(errno.ENOSPC, "its disk is full")
