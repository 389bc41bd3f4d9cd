"""Reading again what could not be read, where that may help: network disks fail for moments."""

import errno
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from holdfast.datamodules.decoding import Unreadable

T = TypeVar("T")

#: Seconds to wait before a file is read again: within two, a network disk that fails over is back.
_WAITS = (0.1, 0.4, 1.0)
#: Seconds that a process waits for files in all, for the whole disk, or many files, may be gone.
_PATIENCE = 20.0
#: Seconds of them that each file earns back that can be read.
_EARNED = 0.01
#: Errors of a disk that may be gone the next moment.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EMFILE,
}


class Patience:
    """What a process can still wait for files.

    Attributes:
        left: seconds.
    """

    def __init__(self) -> None:
        self.left = _PATIENCE

    def tried(self, read: Callable[[], T], known: bool) -> T:
        """What ``read`` gives, which is called again where that may help.

        Args:
            read: of one file.
            known: the file could be read before, so that whatever is wrong is new.

        Raises:
            Unreadable: it cannot be read.
        """
        for wait in _WAITS:
            try:
                result = read()
            except Unreadable as error:
                if wait > self.left or not (known or _passing(error)):
                    raise
                self.left -= wait
                sleep(wait)
            else:
                self.left = min(_PATIENCE, self.left + _EARNED)
                return result
        return read()


def _passing(error: Unreadable) -> bool:
    """Whether the disk, and not the file, is the likely cause."""
    cause: BaseException | None = error
    while isinstance(cause, Unreadable):  # of a mask, say, within that of its image
        cause = cause.__cause__
    return isinstance(cause, OSError) and cause.errno in _PASSING
