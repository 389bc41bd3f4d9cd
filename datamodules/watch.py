"""A folder in which images arrive while the stream runs: a stream that waits.

An image set needs to know how many images there are; this one has room for many, and fills them in
as they come. What is not filled in is never asked for.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.patience import Patience
from holdfast.datamodules.reading import Reading
from holdfast.datamodules.settings import FilesConfig
from holdfast.datamodules.targets import LabelTarget
from holdfast.datamodules.walk import found_below
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: A file of this name in the folder ends the stream, once what had arrived before it is served.
STOP = "STOP"


@dataclass
class WatchConfig(FilesConfig):
    """Images as they arrive in a folder, in the order in which they were written."""

    root: str | None = option(None, "the folder; images may lie in folders below it")
    idle: float | None = option(
        None, "seconds without a new image after which the stream ends; null: never"
    )
    settled: float = option(1.0, "seconds for which a file must not have changed before it is read")
    most: int = option(1_000_000, "images at most, for whose names there is room")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("idle", "settled"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"data.{name}={value} must not be negative")
        if self.most < 1:
            raise InputError("data.most must be at least 1")


class ArrivingFiles(ImageFiles):
    """Files that are not there yet, as if they were an array of images.

    Args:
        root: the folder.
        most: how many there may be.
        reading: how a file becomes an image; it says size and channels.
    """

    def __init__(self, root: Path, most: int, reading: Reading) -> None:
        assert isinstance(reading.size, tuple)
        assert reading.channels is not None
        self.root, self.reading = os.path.realpath(root), reading
        self.rois, self.further = None, None
        self.paths = np.full(most, "", dtype=object)
        self.dense, self._checked = False, False  # what has settled is read once
        self._located, self._patience, self._cache = {}, Patience(), None
        self._places = np.arange(most)
        self._shape, self.dtype = (*reading.size, reading.channels), np.dtype(np.uint8)
        self._found, self._facts, self._seen = None, None, frozenset()


def load_watch(config: WatchConfig, split: Split) -> ImageSet:
    """Room for the images that will arrive; ``arrive`` fills it.

    Raises:
        InputError: it is asked to train on, the folder is not there, or the images' form is not
            said.
    """
    if split != "target":
        raise InputError(
            "data=watch waits for images, which is no training set: train with data=folder, and "
            "watch with adapt.py data=watch"
        )
    if config.root is None:
        raise InputError("data.root is missing: name the folder to watch, data.root=DIR")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise InputError(f"the folder {root} does not exist: create it, or check data.root")
    sides = [config.size, config.size] if isinstance(config.size, int) else config.size
    if sides is None or config.channels is None:
        raise InputError(
            "data=watch must know what images will be like before the first one arrives: say "
            "data.size=[H,W] and data.channels=1 or 3, as the source has them"
        )
    most = config.most
    reading = Reading(
        tuple(sides),
        config.fit,
        config.channels,
        config.reading().window,
        config.spacing,
        None,
        config.given_range(),
    )
    names = np.full(most, "", dtype=object)
    return ImageSet(
        images=ArrivingFiles(root, most, reading),
        target=LabelTarget.of_nothing(most),
        ids=names,
        domains=np.full(most, root.resolve().name, dtype=object),
        groups=names,
        spatial_dims=len(sides),
        notes=("images are taken as they arrive",),
    )


def waits(images: ImageSet) -> bool:
    """Whether images are still to arrive."""
    return isinstance(images.images, ArrivingFiles)


def arrive(images: ImageSet, row: int, name: str) -> None:
    """Fill in an image.

    Args:
        images: from ``load_watch``, or made of it.
        row: where.
        name: of its file, below the folder.
    """
    files: Any = images.images
    files.paths[row] = images.ids[row] = images.groups[row] = name


class Arrivals:
    """What lies in a folder and was not taken yet.

    Args:
        root: the folder.
        settled: seconds for which a file must not have changed.
    """

    def __init__(self, root: Path, settled: float) -> None:
        self.root, self.settled = root, settled
        self.taken: set[str] = set()
        self._sizes: dict[str, tuple[int, float]] = {}

    def take(self, count: int) -> list[str]:
        """The next images that have settled, at most so many, the oldest first."""
        ready = []
        now, sizes = time(), {}
        for name, entry in found_below(self.root):
            if name in self.taken:
                continue
            try:
                about = entry.stat()
            except OSError:  # gone again
                continue
            sizes[name] = (about.st_size, about.st_mtime)
            still = self._sizes.get(name, sizes[name]) == sizes[name]
            if still and now - about.st_mtime >= self.settled:
                ready.append((about.st_mtime_ns, name))
        self._sizes = sizes
        chosen = [name for _, name in sorted(ready)[:count]]
        self.taken.update(chosen)
        return chosen

    @property
    def waiting(self) -> int:
        """How many were seen at the last look and are not taken."""
        return sum(name not in self.taken for name in self._sizes)

    @property
    def stopped(self) -> bool:
        """Whether somebody asked the stream to end."""
        return (self.root / STOP).exists()
