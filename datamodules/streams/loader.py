"""The loader that serves a stream, and goes on where it was stopped."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.shown import Transform, shown_batch, shown_together
from holdfast.datamodules.streams.stream import Order, Stream
from holdfast.tta.distributed import place
from holdfast.tta.errors import InputError

_log = logging.getLogger(__name__)
_TOLD = 20  # lost images that are told of one by one


class _Batches(Dataset[dict[str, Any]]):
    """The stream as a dataset whose items are whole batches, so that workers decode, shift and
    collate them.
    """

    def __init__(
        self,
        images: ImageSet,
        stream: Stream,
        batch_size: int,
        window: int | None,
        lenient: bool,
        raw: bool,
    ) -> None:
        self.images, self.stream, self.batch_size, self.window = (
            images.transformed(None),
            stream,
            batch_size,
            window,
        )
        self.lenient, self.raw = lenient, raw
        self.rank, self.parts = place()

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, stop = index * self.batch_size, min((index + 1) * self.batch_size, len(self.stream))
        start = first if self.window is None else max(0, min(first, stop - self.window))
        items = self.stream.part(slice(start + self.rank, stop, self.parts))
        lost: dict[int, str] = {}
        batch = self.images.batch(items.rows, lost if self.lenient else None, raw=self.raw)
        shifts = items.shifts_of_items()
        if any(shift is not None for shift in shifts):
            self._shift(batch, shifts)
        return {
            **batch,
            "domain": items.domains(self.images),
            "seen_before": first - start,
            "lost": lost,
        }

    def _shift(self, batch: dict[str, Any], shifts: Sequence[Transform | None]) -> None:
        """Put a batch under the shifts of its items, with what is known of each pixel."""
        given, target = (batch["image"], batch["id"]), self.images.target
        if target.of_pixels:
            both = shown_together(shifts, *given, batch[target.key])
            batch["image"], batch[target.key] = both
        else:
            batch["image"] = shown_batch(shifts, *given)


class StreamLoader:
    """Batches of the target in order of arrival.

    It has a length, ``state_dict`` and ``load_state_dict``, with which Lightning resumes at the
    exact batch. A batch is what ``ImageSet.batch`` gives, ``seen_before``: how many of its first
    images were already in earlier batches, 0 without a window, and ``lost``: places of images that
    cannot be read and do not count, where others stand in. Several processes share every batch:
    each gets every so many-th image of it.

    Args:
        images: the target.
        stream: from ``create_stream``; or just rows in order of arrival, which come under the
            images' own transform.
        batch_size: images that arrive together; the last batch may be short.
        workers: processes that prepare batches; 0: none but this one.
        window: newest images that each batch shows, those that just arrived last; None: only those.
        lenient: files that can no longer be read do not end the stream: they are in ``lost``, and a
            batch of nothing else is left out. Later passes leave out what the first one lost.

    Raises:
        InputError: images of several sides are to share a batch.

    Attributes:
        lost: id and reason of each image that the first pass could not read, by its position in the
            stream.
    """

    def __init__(
        self,
        images: ImageSet,
        stream: Stream | Order,
        batch_size: int,
        workers: int = 0,
        window: int | None = None,
        lenient: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        if images.ragged and (window or batch_size) > 1:
            raise InputError(
                "the target's images have several sides, and a batch has one: let them arrive one "
                "by one, stream.batch_size=1, or bring all to one size, data.size"
            )
        self.lost: dict[int, tuple[str, str]] = {}
        self.lenient, self._passed = lenient, False
        self.images, self.batch_size = images, batch_size
        self.stream = stream if isinstance(stream, Stream) else Stream(stream, (images.transform,))
        self.workers, self.window, self.device = workers, window, device
        self.position = 0  # where the next iteration starts
        self._handed_out = 0

    def __len__(self) -> int:
        return -(-len(self.stream) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._refuse_what_cannot_be_split()
        start, self.position = self.position, 0
        raw = self._travels_raw
        how = (self.batch_size, self.window, self.lenient, raw)
        batches = _Batches(self.images, self.stream, *how)
        # The sampler, not a shortened stream, goes on at the position: a window reaches behind it.
        order = range(start, len(batches))
        pinned = torch.cuda.is_available()  # copies to the device then go on beside its work
        loader = DataLoader(
            batches, batch_size=None, sampler=order, num_workers=self.workers, pin_memory=pinned
        )
        empty = True
        for index, batch in enumerate(loader, start):
            self._handed_out = index + 1
            if raw:
                there = batch["image"].to(self.device, non_blocking=True)
                batch["image"] = self.images.scale(there)
            if self._counts(batch, index):
                empty = False
                yield batch
        if empty and self.lost and not start:
            name, reason = next(iter(self.lost.values()))
            raise InputError(
                f"no image of the stream can be read any more, the first is {name}, which {reason}"
            )
        self._passed = True

    @property
    def _travels_raw(self) -> bool:
        """Whether images go to the device as the bytes that they are."""
        shifted = any(shift is not None for shift in self.stream.shifts)
        return self.device is not None and self.images.bytes_in_memory and not shifted

    def _counts(self, batch: dict[str, Any], index: int) -> bool:
        """Whether a batch has an image that counts; its ``lost`` become the places that do not."""
        rank, parts = place()
        seen, found = batch["seen_before"], batch["lost"]
        first = index * self.batch_size + rank
        positions = {spot: first + (spot - seen) * parts for spot in range(seen, len(batch["id"]))}
        if not self._passed:
            for spot in found.keys() & positions.keys():
                self._lose(positions[spot], batch["id"][spot], found[spot])
        batch["lost"] = [spot for spot, position in positions.items() if position in self.lost]
        return parts > 1 or len(batch["lost"]) < len(positions)

    def _lose(self, position: int, name: str, reason: str) -> None:
        self.lost[position] = (name, reason)
        if len(self.lost) <= _TOLD:
            _log.warning("%s %s: it gets no prediction", name, reason)
        elif len(self.lost) == _TOLD + 1:
            _log.warning("… and more images get no prediction: see the end of predictions.csv")

    def _refuse_what_cannot_be_split(self) -> None:
        _, parts = place()
        smallest = min(self.batch_size, len(self.stream) % self.batch_size or self.batch_size)
        if parts > 1 and self.window is not None:
            raise InputError("stream.window works in one process only: use trainer.devices=1")
        if parts > 1 and smallest < 2 * parts:
            raise InputError(
                f"a batch of {smallest} image(s) is too small for {parts} processes, which need 2 "
                "each: choose another "
                "stream.batch_size, or trainer.devices=1"
            )

    def state_dict(self) -> dict[str, Any]:
        """The number of batches already handed out, and what was lost of them."""
        lost = [[position, *told] for position, told in self.lost.items()]
        return {"position": self._handed_out, "lost": lost}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next iteration behind the batches that were handed out."""
        self.position = self._handed_out = state_dict["position"]
        self.lost.clear()
        for position, name, reason in state_dict.get("lost", ()):
            self.lost[position] = (name, reason)
