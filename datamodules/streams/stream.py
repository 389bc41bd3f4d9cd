"""A stream, item by item: which image arrives when, under which shift; as a small table it can be
saved.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.images import ImageSet, Transform
from holdfast.datamodules.shifts import Shift
from holdfast.tta.csvfile import RowFile
from holdfast.tta.errors import InputError

Order = npt.NDArray[np.int64]

#: Items that are Python objects at a time.
_BLOCK = 10_000
#: Columns of a saved stream; shift, severity of compositions are joined by "+".
COLUMNS = ("position", "row", "id", "domain", "shift", "severity", "seed")


@dataclass(frozen=True)
class Stream:
    """Items in order of arrival.

    Args:
        rows: (N,) rows of the image set.
        shifts: the distinct transforms that items arrive under, None for none; they stand in for
            the image set's own.
        which: (N,) index into ``shifts``; None: the first one throughout.
    """

    rows: Order
    shifts: tuple[Transform | None, ...]
    which: Order | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, items: slice) -> "Stream":
        """Some of the items."""
        return Stream(
            self.rows[items], self.shifts, None if self.which is None else self.which[items]
        )

    def shifts_of_items(self) -> list[Transform | None]:
        """The transform of each item."""
        if self.which is None:
            return [self.shifts[0]] * len(self)
        return [self.shifts[index] for index in self.which.tolist()]

    def domains(self, images: ImageSet) -> list[str]:
        """The domain of each item, by which metrics are split: the image's, and the shift where
        that changes on the way.
        """
        names: list[str] = images.domains[self.rows].tolist()
        if len(self.shifts) == 1:
            return names
        pairs = zip(names, self.shifts_of_items(), strict=True)
        return [name if shift is None else f"{name} {shift}" for name, shift in pairs]

    def hash(self, images: ImageSet) -> str:
        """SHA-256 of the items in their order: which image of which name, under which shift."""
        digest = hashlib.sha256(np.ascontiguousarray(self.rows).tobytes())
        digest.update("\n".join(map(str, images.ids[self.rows].tolist())).encode(errors="replace"))
        digest.update(repr([str(shift) for shift in self.shifts]).encode())
        if self.which is not None:
            digest.update(np.ascontiguousarray(self.which).tobytes())
        return digest.hexdigest()

    def save(self, path: Path, images: ImageSet) -> None:
        """Write the table as CSV, which ``stream=replay`` reads.

        Raises:
            InputError: a transform is not a ``Shift``.
        """
        described = {shift: _described(shift) for shift in self.shifts}
        ids, domains = images.ids[self.rows].tolist(), images.domains[self.rows].tolist()
        items = zip(self.rows.tolist(), ids, domains, self.shifts_of_items(), strict=True)
        table = RowFile(path)
        table.write([COLUMNS])
        lines = (
            [position, *item, *described[shift]] for position, (*item, shift) in enumerate(items)
        )
        while block := list(islice(lines, _BLOCK)):
            table.write(block)
        table.close()


def joined(streams: Sequence[Stream]) -> Stream:
    """Streams one after the other."""
    shifts = tuple(dict.fromkeys(shift for stream in streams for shift in stream.shifts))
    which = []
    for stream in streams:
        places = np.array([shifts.index(shift) for shift in stream.shifts])
        which.append(
            np.full(len(stream), places[0]) if stream.which is None else places[stream.which]
        )
    return Stream(
        np.concatenate([stream.rows for stream in streams]), shifts, np.concatenate(which)
    )


def _described(shift: Transform | None) -> tuple[str, str, int]:
    """Shift, severity and seed as the table's columns."""
    if shift is None:
        return "none", "0", 0
    if not isinstance(shift, Shift):
        raise InputError(
            "the images' transform is not made by create_shift: a stream with it cannot be saved"
        )
    names, severities = zip(*shift.parts, strict=True)
    return "+".join(names), "+".join(map(str, severities)), shift.seed
