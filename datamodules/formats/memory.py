"""How much memory is free, and files that would take more."""

import os
from pathlib import Path

from holdfast.datamodules.formats.decoded import Unreadable

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # of a container, which may have less than the machine


def refuse_beyond_memory(size: float) -> None:
    """Refuse to decode so many bytes if they are more than there is.

    Raises:
        Unreadable: it says so.
    """
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
