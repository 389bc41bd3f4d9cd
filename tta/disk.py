"""What is asked of a disk beyond reading and writing."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the disk has what was written to a file or, of a folder, its entries.

    Raises:
        OSError: it does not answer.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
