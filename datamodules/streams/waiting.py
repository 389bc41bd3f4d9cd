"""The loader of a stream that waits for its images."""

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from watchfiles import watch

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.streams.stream import COLUMNS
from holdfast.datamodules.watch import Arrivals, arrive
from holdfast.tta.csvfile import RowFile, read_rows
from holdfast.tta.growing import GrowingFile

_log = logging.getLogger(__name__)
#: Seconds between two looks where nothing tells of changes, as on network disks, and at most while
#: something is about to settle.
_LOOK, _SOON = 2.0, 0.2


class WaitingLoader:
    """Batches of images in the order in which they arrive.

    It goes on where it was stopped, and takes no image twice: ``stream.csv`` has those that were
    taken. A batch is what ``StreamLoader`` gives.

    Args:
        images: room for them, from ``load_watch``.
        arrivals: what comes in.
        batch_size: images that are served together.
        max_wait: seconds after its first image at which a batch is served though it is short; None:
            it waits until it is full.
        idle: seconds without a new image after which the stream ends; None: never.

    Attributes:
        lost: id and reason of each image that could not be read, by its position in the stream.
    """

    def __init__(
        self,
        images: ImageSet,
        arrivals: Arrivals,
        batch_size: int,
        max_wait: float | None,
        idle: float | None,
    ) -> None:
        self.images, self.arrivals, self.batch_size = images, arrivals, batch_size
        self.max_wait, self.idle = max_wait, idle
        self.lost: dict[int, tuple[str, str]] = {}
        self.path: Path | None = None
        self._table: RowFile | None = None
        self._count = self._batches = 0
        self._taken_up: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._open()
        with _Bell(self.arrivals.root) as bell:
            while names := self._gathered(bell):
                batch = self._batch(names)
                if len(batch["lost"]) < len(names):
                    self._batches += 1
                    yield batch

    @property
    def files(self) -> list[GrowingFile]:
        """The table of what arrived."""
        return [] if self._table is None else [self._table]

    def state_dict(self) -> dict[str, Any]:
        """What was handed out, and what was lost of it."""
        return {
            "position": self._batches,
            "images": self._count,
            "lost": [[position, *told] for position, told in self.lost.items()],
            "table": self._table and self._table.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind the batches that were handed out."""
        self._taken_up = state_dict
        self._batches, self._count = state_dict["position"], state_dict["images"]
        self.lost.clear()
        self.lost.update({position: (name, why) for position, name, why in state_dict["lost"]})

    def _open(self) -> None:
        """Begin the table, or take up that of a run that was stopped."""
        assert self.path is not None, "the table has no place yet"
        state = self._taken_up and self._taken_up["table"]
        self._table = RowFile(self.path, state=state)
        if state is None:
            self._table.write([COLUMNS])
            return
        for row in read_rows(self.path):
            arrive(self.images, int(row["row"]), row["id"])
            self.arrivals.taken.add(row["id"])

    def _gathered(self, bell: "_Bell") -> list[str]:
        """Wait for the images of the next batch; none: the stream has ended."""
        names: list[str] = []
        most = min(self.batch_size, len(self.images) - self._count)
        first = news = monotonic()
        while len(names) < most:
            came = self.arrivals.take(most - len(names))
            now = monotonic()
            if came:
                first, news = first if names else now, now
                names += came
            elif self._ends(names, now - first, now - news):
                break
            else:
                bell.wait(_SOON if names or self.arrivals.waiting else _LOOK)
        return names

    def _ends(self, names: list[str], waited: float, quiet: float) -> bool:
        """Whether a batch goes as it is, or the stream ends without one."""
        late = bool(names) and self.max_wait is not None and waited >= self.max_wait
        over = self.arrivals.stopped and not self.arrivals.waiting
        return late or over or (self.idle is not None and quiet >= self.idle)

    def _batch(self, names: list[str]) -> dict[str, Any]:
        assert self._table is not None
        rows = np.arange(self._count, self._count + len(names))
        for row, name in zip(rows.tolist(), names, strict=True):
            arrive(self.images, row, name)
        domains = self.images.domains[rows].tolist()
        told = zip(rows.tolist(), rows.tolist(), names, domains, strict=True)
        self._table.write([[*row, "none", "0", 0] for row in told])
        self._count += len(names)
        found: dict[int, str] = {}
        batch = self.images.batch(rows, found)
        for spot, reason in found.items():
            self.lost[int(rows[spot])] = (names[spot], reason)
            _log.warning("%s %s: it gets no prediction", names[spot], reason)
        return {**batch, "seen_before": 0, "lost": sorted(found)}


class _Bell:
    """Tells of changes in a folder, where the system does; used as a context."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rung, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "_Bell":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def wait(self, seconds: float) -> None:
        """Wait for a change, but no longer than that."""
        self._rung.wait(seconds)
        self._rung.clear()

    def _listen(self) -> None:
        try:
            for _ in watch(self.root, watch_filter=None, step=20, stop_event=self._done):
                self._rung.set()
        except Exception as error:  # no more watches, or a disk that has none: looks are enough
            _log.info("changes in %s are not told (%s)", self.root, type(error).__name__)
