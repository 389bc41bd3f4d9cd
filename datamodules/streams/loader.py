"""The loader that serves a stream, and goes on where it was stopped."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.images import ImageSet
from datamodules.streams.stream import Order, Stream


class _Batches(Dataset[dict[str, Any]]):
    """The stream as a dataset whose items are whole batches, so that workers decode, shift and collate them."""

    def __init__(self, images: ImageSet, stream: Stream, batch_size: int, window: int | None) -> None:
        self.images, self.stream, self.batch_size, self.window = images.transformed(None), stream, batch_size, window

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, stop = index * self.batch_size, min((index + 1) * self.batch_size, len(self.stream))
        start = first if self.window is None else max(0, min(first, stop - self.window))
        items = self.stream.part(slice(start, stop))
        batch = self.images.batch(items.rows)
        shifts = items.shifts_of_items()
        if any(shift is not None for shift in shifts):
            shown = zip(batch["image"], batch["id"], shifts, strict=True)
            batch["image"] = torch.stack([image if shift is None else shift(image, name) for image, name, shift in shown])
        return {**batch, "domain": items.domains(self.images), "seen_before": first - start}


class StreamLoader:
    """Batches of the target in order of arrival.

    It has a length, ``state_dict`` and ``load_state_dict``, with which Lightning resumes at the exact batch. A batch is what
    ``ImageSet.batch`` gives, and ``seen_before``: how many of its first images were already in earlier batches, 0 without a
    window.

    Args:
        images: the target.
        stream: from ``create_stream``; or just rows in order of arrival, which come under the images' own transform.
        batch_size: images that arrive together; the last batch may be short.
        workers: processes that prepare batches; 0: none but this one.
        window: newest images that each batch shows, those that just arrived last; None: only those.
    """

    def __init__(
        self, images: ImageSet, stream: Stream | Order, batch_size: int, workers: int = 0, window: int | None = None
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self.stream = stream if isinstance(stream, Stream) else Stream(stream, (images.transform,))
        self.workers, self.window = workers, window
        self.position = 0  # where the next iteration starts
        self._handed_out = 0

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        start, self.position = self.position, 0
        batches = _Batches(self.images, self.stream, self.batch_size, self.window)
        # The sampler, not a shortened stream, goes on at the position: a window reaches behind it.
        order = range(start, len(batches))
        pinned = torch.cuda.is_available()  # copies to the device then go on beside its work
        loader = DataLoader(batches, batch_size=None, sampler=order, num_workers=self.workers, pin_memory=pinned)
        for index, batch in enumerate(loader):
            self._handed_out = start + index + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches already handed out."""
        return {"position": self._handed_out}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next iteration behind the batches that were handed out."""
        self.position = self._handed_out = state_dict["position"]
