"""Images on their way to the lane: decoded by threads, of which the last to end puts them there."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from torch import Tensor

from holdfast.datamodules.decoding import Unreadable
from holdfast.serving.lane import Closed, Item, Lane


class Coming:
    """The images of one request: all of them get into the lane, or none.

    No other thread is woken between an image's decoding and its place in the lane: for one client
    each hop would be time in which nothing is done.

    Args:
        lane: in which their places are held already; they are given up where an image is none.
        read: makes an image of the bytes of a file; called by several threads.
        ids: their names.
        told: what the request says of each, by the columns' names.

    Attributes:
        answers: what becomes of each; where one cannot be read, all say so.
    """

    def __init__(
        self,
        lane: Lane,
        read: Callable[[bytes], Tensor],
        ids: Sequence[str],
        told: Sequence[Mapping[str, str]],
    ) -> None:
        self.answers: list[Future[Any]] = [Future() for _ in ids]
        self._lane, self._read, self._ids, self._told = lane, read, ids, told
        self._images: dict[int, Tensor] = {}
        self._errors: dict[int, BaseException] = {}
        self._ended = threading.Lock()

    def start(self, decoders: Executor, contents: Sequence[bytes]) -> None:
        """Let threads decode the files, one an image."""
        for place, content in enumerate(contents):
            decoders.submit(self._decode, place, content)

    def _decode(self, place: int, content: bytes) -> None:
        image: Tensor | None = None
        error: BaseException | None = None
        try:
            image = self._read(content)
        except Unreadable as why:
            error = Unreadable(f"{self._ids[place]} {why}")
        except BaseException as bug:  # the one who waits for the answer is told
            error = bug
        with self._ended:
            if image is not None:
                self._images[place] = image
            if error is not None:
                self._errors[place] = error
            last = len(self._images) + len(self._errors) == len(self._ids)
        if last:
            self._end()

    def _end(self) -> None:
        """Put the images into the lane, or say why not."""
        places = range(len(self._ids))
        error = next((self._errors[place] for place in places if place in self._errors), None)
        if error is None:
            try:
                self._lane.put([self._item(place) for place in places])
                return
            except Closed as closed:
                error = closed
        self._lane.leave(len(self._ids))
        for answer in self.answers:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)

    def _item(self, place: int) -> Item:
        told = dict(self._told[place])
        return Item(self._images[place], self._ids[place], told, self.answers[place])
