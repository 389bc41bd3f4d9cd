"""Streams whose order was written down: by a clock, or by an earlier run."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np

from holdfast.datamodules.conventions import MISSING
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.shifts import Shift
from holdfast.datamodules.streams.base import StreamConfig, as_they_are
from holdfast.datamodules.streams.clock import sortable
from holdfast.datamodules.streams.stream import COLUMNS, Order, Stream
from holdfast.tta.config import closest
from holdfast.tta.csvfile import unquoted
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: What is no time; -1 may be one, counted from some moment.
_UNTIMED = {"", *MISSING} - {"-1", "-1.0"}
#: Columns of a saved stream that replaying it reads.
_USED = ("id", "row", "shift", "severity", "seed")


@dataclass
class TimeConfig(StreamConfig):
    """The target's real order, by a column of its metadata; every image once a pass."""

    column: str = option(
        "time", "the column: numbers, dates of ISO 8601 (2024-05-31T12:00) or DICOM"
    )
    time_format: str | None = option(
        None, "how its dates are written, where otherwise: %d.%m.%Y for 31.05.2024 (strptime)"
    )

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, earliest first; those of the same time as the target lists them."""
        if self.column not in images.metadata:
            raise InputError(
                f"the target has no column {self.column!r} to order by: "
                f"{closest(self.column, images.metadata)}"
            )
        values = images.metadata[self.column]
        text = [str(value).strip() for value in values.tolist()]
        missing = sum(value in _UNTIMED for value in text)
        if missing:
            raise InputError(
                f"the column {self.column!r} is empty for {missing} of the target's {len(images)} "
                "images"
            )
        if values.dtype.kind not in "iufM":
            values = sortable(self.column, text, self.time_format)
        return as_they_are(images, np.argsort(values, kind="stable"))


@dataclass
class ReplayConfig(StreamConfig):
    """Exactly the items of a table: the stream.csv of an earlier run, or any CSV with a column
    id.
    """

    path: str | None = option(None, "the table; required")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """The table's items in its order, under the table's shifts; nothing is left to chance."""
        if self.path is None:
            raise InputError("stream.path is missing: name the table, stream.path=FILE.csv")
        if images.transform is not None:
            raise InputError("stream=replay takes its shifts from the table: leave out shift=")
        names, numbers, which = [], [], []
        written: dict[
            tuple[str, str, str], int
        ] = {}  # so that each is understood once, and not a million times
        shifts: dict[Shift | None, int] = {}
        for place, (name, number, kinds, severity, seed) in enumerate(
            _lines(Path(self.path).expanduser())
        ):
            key = (kinds, severity, seed)
            if key not in written:
                written[key] = shifts.setdefault(
                    _shift(*key, where=f"{self.path}, line {place + 2}"), len(shifts)
                )
            names.append(name)
            numbers.append(number)
            which.append(written[key])
        return Stream(_find(names, numbers, images, self.path), tuple(shifts), np.array(which))


def _lines(path: Path) -> Iterator[tuple[str, ...]]:
    """Id, row, shift, severity and seed of each item; empty where the table does not say."""
    empty = True
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            if "id" not in columns:
                listed = ", ".join(columns) or "(none)"
                raise InputError(
                    f"{path} has the columns {listed}: expected {', '.join(COLUMNS)}, at least id"
                )
            places = [columns.index(name) if name in columns else len(columns) for name in _USED]
            picked = itemgetter(*places)
            ours = tuple(columns) == COLUMNS  # a table of somebody else's quotes nothing
            for line in reader:
                if line:
                    empty = False
                    cells = list(map(unquoted, line)) if ours else line
                    yield picked(cells + [""] * (len(columns) + 1 - len(cells)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the stream's table {path} cannot be read ({error}): check stream.path"
        ) from error
    if empty:
        raise InputError(f"{path} has no items: check stream.path")


def _find(names: list[str], numbers: list[str], images: ImageSet, path: str) -> Order:
    """The row of each line's image: by its id, and where ids are not unique by its row."""
    if all(map(str.isdecimal, numbers)) and max(map(len, numbers)) < 18:
        rows = np.array(numbers).astype(np.int64)
        if rows.max() < len(images) and (images.ids[rows] == np.array(names)).all():
            return rows
    ids = images.ids.tolist()
    places = {name: row for row, name in enumerate(ids)}
    rows = np.empty(len(names), dtype=np.int64)
    for place, (name, number) in enumerate(zip(names, numbers, strict=True)):
        row = places.get(name, -1)
        if row >= 0 and len(places) < len(ids):
            row = (
                int(number)
                if number.isdecimal() and int(number) < len(ids) and ids[int(number)] == name
                else -1
            )
        if row < 0:
            raise InputError(
                f"{path}, line {place + 2}: the target has no image {name!r} there: "
                "replay a stream on the data that it was made from"
            )
        rows[place] = row
    return rows


def _shift(names: str, severity: str, seed: str, where: str) -> Shift | None:
    """The shift that a line describes; ``where`` says which line."""
    if names in ("", "none"):
        return None
    try:
        severities = [int(number) for number in (severity or "3").split("+")]
        parts, number = tuple(zip(names.split("+"), severities, strict=True)), int(seed or 0)
    except ValueError as error:
        raise InputError(
            f"{where}: shift {names!r} with severity {severity!r} and seed {seed!r} is not of the "
            "form noise+blur, 3+5, 0"
        ) from error
    try:
        return Shift(parts, number)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
