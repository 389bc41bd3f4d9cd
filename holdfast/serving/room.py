"""Whether the disk takes what a service must write before it may answer."""

import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

from holdfast.tta.folder import reason_of

#: Seconds for which what was found holds: anybody may ask, and each look writes.
_HOLDS = 1.0
#: Bytes that are written at once.
_CHUNK = 2**20


class Room:
    """Tells whether the folder of a service takes one more batch, by writing as much to it.

    Only that shows a quota, a limit and a disk that became read-only as well as one that is full.

    Args:
        folder: of the results.
        size: bytes of a batch in the journal.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._found, self._looked = "", -_HOLDS
        self._looking = threading.Lock()

    @property
    def missing(self) -> str:
        """Why nothing can be written, a sentence without the folder's name; empty where there is
        room.
        """
        with self._looking:
            if monotonic() - self._looked >= _HOLDS:
                self._found, self._looked = self._look(), monotonic()
            return self._found

    def _look(self) -> str:
        probe = self.folder / ".room"
        try:
            with probe.open("wb", buffering=0) as file:
                with suppress(OSError):  # some shares hold what is open
                    probe.unlink()  # nothing is left of it, also where the service dies
                for start in range(0, self.size, _CHUNK):
                    left = memoryview(bytes(min(_CHUNK, self.size - start)))
                    while left:
                        left = left[file.write(left) :]
        except OSError as error:
            if not self.folder.exists():
                return "the folder of the results was removed: start the service again"
            return (
                f"the results cannot be written, {reason_of(error)}: make room, or choose another "
                "disk, output=DIR"
            )
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        return ""
