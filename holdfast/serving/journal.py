"""What was taken in since the last checkpoint: a service that was killed serves it again, and is
where it was.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from holdfast.serving.lane import Item
from holdfast.tta.growing import GrowingFile
from holdfast.tta.saying import warn


class Recorded(NamedTuple):
    """A batch as it was taken in.

    Attributes:
        batch: its number.
        items: its images.
    """

    batch: int
    items: list[Item]


class Journal:
    """A file of batches, each whole before it is served: no row is lost or doubled by a kill.

    It holds pixels and what requests said of them, and nothing else of the files that came in; a
    checkpoint empties it.

    Args:
        path: the file; what is in it is read by ``read`` before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GrowingFile(path)

    def add(self, batch: int, items: Sequence[Item]) -> None:
        """Keep a batch.

        Raises:
            WriteError: the disk takes no more; the batch is then not to be served.
        """
        images = torch.stack([item.image for item in items]).numpy()
        head = {
            "batch": batch,
            "shape": list(images.shape),
            "images": [[item.id, item.received, item.told] for item in items],
        }
        line = json.dumps(head).encode() + b"\n"
        self._file.append(line + images.tobytes())

    def restart(self) -> None:
        """Forget all batches: a checkpoint has them."""
        self._file.close()
        self._file = GrowingFile(self.path)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()


def read(path: Path) -> Iterator[Recorded]:
    """The batches of a journal; one that was being written when the service died was not served.
    Where the file is damaged the rest is left out, which is said.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while (line := file.readline()).endswith(b"\n"):
            left -= len(line)
            try:
                head = _head_of(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                start = file.tell() - len(line)
                warn(f"{path} is damaged: what it holds from byte {start} on is not served again")
                return
            size = 4 * prod(head["shape"])
            if size > left:
                return
            left -= size
            images = torch.from_numpy(np.frombuffer(file.read(size), np.float32).copy())
            yield Recorded(head["batch"], _items(head, images.reshape(head["shape"])))


def _head_of(line: bytes) -> Mapping[str, Any]:
    """What is said of a batch before its pixels.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the line is none that ``add`` wrote.
    """
    head: Mapping[str, Any] = json.loads(line)
    count, *sides = head["shape"]
    whole = all(type(number) is int for number in (head["batch"], count, *sides))
    if not whole or min(count, *sides) < 1 or len(head["images"]) != count:
        raise ValueError
    for name, received, told in head["images"]:
        if not isinstance(name, str) or not isinstance(received, float | int):
            raise ValueError
        dict(told.items())
    return head


def _items(head: Mapping[str, Any], images: torch.Tensor) -> list[Item]:
    return [
        Item(image, name, dict(told), received=received)
        for image, (name, received, told) in zip(images, head["images"], strict=True)
    ]
