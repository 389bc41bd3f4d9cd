"""How much memory is free, and files that would take more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from holdfast.datamodules.formats.decoded import Unreadable

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # of a container, which may have less than the machine
#: Bytes that are always there: looking takes as long as decoding so much.
_SMALL = 2**24
#: Bytes that a file may unpack to where somebody said so; of this thread alone.
_ALLOWED: ContextVar[float | None] = ContextVar("allowed", default=None)


@contextmanager
def at_most(size: float) -> Iterator[None]:
    """Within the block files that unpack to more bytes than this are refused as well.

    >>> with at_most(10):
    ...     refuse_beyond_memory(11)
    Traceback (most recent call last):
    holdfast.datamodules.formats.decoded.Unreadable: unpacks to 11 bytes, and 10 are allowed
    """
    before = _ALLOWED.set(size)
    try:
        yield
    finally:
        _ALLOWED.reset(before)


def refuse_beyond_memory(size: float) -> None:
    """Refuse to decode so many bytes if they are more than there is, or than is allowed.

    Raises:
        Unreadable: it says so.
    """
    allowed = _ALLOWED.get()
    if allowed is not None and size > allowed:
        raise Unreadable(f"unpacks to {size:.0f} bytes, and {allowed:.0f} are allowed")
    if size < _SMALL:
        return
    free = available_memory()
    if size > free:
        raise Unreadable(
            f"unpacks to {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB of memory are free: it "
            "is "
            "damaged, or too large"
        )


def available_memory() -> float:
    """Bytes that a process can still take: what Linux says is free, elsewhere all that there is."""
    try:
        free = _numbers(_MEMORY)["MemAvailable:"] * 1024.0
    except (OSError, KeyError):
        free = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = float((_GROUP / "memory.max").read_text())
        used = float((_GROUP / "memory.current").read_text())
        # What was read from files is kept while nobody else wants the room.
        return min(free, limit - used + _numbers(_GROUP / "memory.stat")["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group, or one without a limit: "max"
        return free


def _numbers(path: Path) -> dict[str, int]:
    """The numbers of a file of lines such as ``MemAvailable: 12345 kB``."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
