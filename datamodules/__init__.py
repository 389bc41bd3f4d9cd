"""Where images come from, how they are shifted, and in which order they arrive."""

from collections.abc import Callable
from typing import Any

from datamodules.folder import FolderConfig, load_folder
from datamodules.images import UNLABELLED, ImageSet, Split
from datamodules.medmnist import MedMNISTConfig, load_medmnist
from datamodules.npz import NpzConfig, load_npz
from datamodules.phantom import PhantomConfig, load_phantom
from datamodules.shifts import SHIFTS, Shift, create_shift
from datamodules.streams import STREAMS, Stream, StreamLoader, create_stream, stream_order
from datamodules.table import TableConfig, load_table

__all__ = [
    "DATA",
    "SHIFTS",
    "STREAMS",
    "UNLABELLED",
    "ImageSet",
    "Shift",
    "Split",
    "Stream",
    "StreamLoader",
    "create_shift",
    "create_stream",
    "load_images",
    "stream_order",
]

_LOADERS: dict[str, tuple[type, Callable[[Any, Split], ImageSet]]] = {
    "phantom": (PhantomConfig, load_phantom),
    "npz": (NpzConfig, load_npz),
    "medmnist": (MedMNISTConfig, load_medmnist),
    "folder": (FolderConfig, load_folder),
    "table": (TableConfig, load_table),
}

#: Data sets by name, with the dataclass of their options.
DATA: dict[str, type] = {name: config for name, (config, _) in _LOADERS.items()}


def load_images(kind: str, config: Any, split: Split) -> ImageSet:
    """The images of a split of the data set ``kind``."""
    return _LOADERS[kind][1](config, split)
