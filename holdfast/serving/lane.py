"""The one lane to the model: requests wait in a bounded queue, and one thread serves them in
batches.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from torch import Tensor

from holdfast.tta.errors import InputError, WriteError

_LOG = logging.getLogger("holdfast")
#: Seconds that a batch waits at most for requests that are on their way.
_PATIENCE = 0.05
#: How fast the time that an image takes follows what was measured.
_FOLLOWS = 0.1
#: Seconds between looks at a lane in which nothing happens.
_IDLE = 0.25


@dataclass(eq=False)
class Item:
    """An image that waits.

    Attributes:
        image: (channels, *spatial) in 0..1.
        id: its name.
        told: what the request says of it, by the columns' names.
        answer: what becomes of it; cancelled where nobody waits any more.
        arrived: seconds of ``monotonic``.
        received: seconds since 1970.
    """

    image: Tensor
    id: str
    told: dict[str, str]
    answer: "Future[Any]" = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)
    received: float = field(default_factory=time)


class Full(Exception):
    """No room in the queue; ``seconds`` until there may be some."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full: come back in {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """The service is stopping."""


class Lane:
    """Puts images together into batches, which one thread serves one after the other.

    A batch leaves when it is full, when nobody else's image is on its way, or when its first image
    has waited ``wait`` seconds. Its size and the order of images are all that the model sees of
    requests.

    Args:
        serve: makes the answers of a batch; called by the one thread alone.
        idle: called by it between batches, and at times when there are none.
        size: most images of a batch.
        most: images that may wait.
        wait: seconds for a full batch; None: no longer than others are on their way.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[Item]], Sequence[Any]],
        idle: Callable[[], None],
        size: int,
        most: int,
        wait: float | None = None,
    ) -> None:
        self._serve, self._idle = serve, idle
        self.size, self.most, self.wait = size, most, wait
        self._items: deque[Item] = deque()
        self._coming = 0  # images of requests that are being read
        self._changed = threading.Condition()
        self._closed = False
        #: Seconds that an image takes, as measured.
        self.pace = 0.0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Let the thread begin."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._items)

    @property
    def alive(self) -> bool:
        """Whether there is somebody to serve."""
        return self._thread.is_alive() and not self._closed

    def enter(self, images: int = 1) -> None:
        """Hold places for images that are on their way; ``put`` or ``leave`` gives them up.

        Raises:
            Full: there is no room.
            Closed: the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._items) + self._coming + images > self.most:
                raise Full(self._seconds())
            self._coming += images

    def leave(self, images: int = 1) -> None:
        """Give up places."""
        with self._changed:
            self._coming -= images
            self._changed.notify()

    def put(self, items: Sequence[Item]) -> None:
        """Let images wait in the places that were held for them.

        Raises:
            Closed: the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise Closed
            self._coming -= len(items)
            self._items.extend(items)
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Serve what waits, and take no more.

        Args:
            timeout: seconds; what waits longer is told that the service is stopping.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        for item in self._items:
            if item.answer.set_running_or_notify_cancel():
                item.answer.set_exception(Closed())

    def _seconds(self) -> int:
        """Until half of the queue is served, at the pace so far."""
        return max(1, min(60, round(self.pace * self.most / 2)))

    def _run(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            if batch:
                self._answer(batch)
            try:
                self._idle()
            except Exception:
                _LOG.exception("between batches")

    def _next(self) -> list[Item] | None:
        """The next batch; empty where there is none yet, None at the end."""
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(_IDLE)
            if not self._items:
                return None if self._closed else []
            while not self._due():
                self._changed.wait(self._left())
            count = min(self.size, len(self._items))
            batch = [self._items.popleft() for _ in range(count)]
        return [item for item in batch if item.answer.set_running_or_notify_cancel()]

    def _due(self) -> bool:
        full = len(self._items) >= self.size or self._closed
        alone = self.wait is None and not self._coming
        return full or alone or self._left() <= 0

    def _left(self) -> float:
        """Seconds that the first image may still wait."""
        wait = _PATIENCE if self.wait is None else self.wait
        return self._items[0].arrived + wait - monotonic()

    def _answer(self, batch: Sequence[Item]) -> None:
        started = monotonic()
        try:
            answers = self._serve(batch)
        except Exception as error:  # of this batch; the next may do better
            # Answers may have left before something else went wrong.
            waiting = [item for item in batch if not item.answer.done()]
            missed = "served" if waiting else "learned from"
            known = isinstance(error, InputError | WriteError)  # whose sentence says all
            told = f": {error}" if known else ""
            _LOG.error(
                "a batch of %d images was not %s%s", len(batch), missed, told, exc_info=not known
            )
            for item in waiting:
                item.answer.set_exception(error)
            return
        took = (monotonic() - started) / len(batch)
        self.pace = took if not self.pace else self.pace + _FOLLOWS * (took - self.pace)
        for item, answer in zip(batch, answers, strict=True):
            if not item.answer.done():
                item.answer.set_result(answer)
