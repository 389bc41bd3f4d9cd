"""Streams whose order was written down: by a clock, or by an earlier run."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.images import ImageSet
from datamodules.shifts import Shift
from datamodules.streams.base import StreamConfig, as_they_are
from datamodules.streams.stream import COLUMNS, Order, Stream
from tta.config import closest
from tta.errors import InputError
from tta.options import option


@dataclass
class TimeConfig(StreamConfig):
    """The target's real order, by a column of its metadata; every image once a pass."""

    column: str = option("time", "the column: numbers, or dates written year first, 2024-05-31T12:00")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, earliest first; those of the same time as the target lists them."""
        if self.column not in images.metadata:
            raise InputError(f"the target has no column {self.column!r} to order by: {closest(self.column, images.metadata)}")
        values = _sortable(images.metadata[self.column])
        missing = int((values != values).sum() if values.dtype.kind in "fM" else (values == "").sum())
        if missing:
            raise InputError(f"the column {self.column!r} is empty for {missing} of the target's {len(images)} images")
        return as_they_are(images, np.argsort(values, kind="stable"))


@dataclass
class ReplayConfig(StreamConfig):
    """Exactly the items of a table: the stream.csv of an earlier run, or any CSV with a column id."""

    path: str | None = option(None, "the table; required")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """The table's items in its order, under the table's shifts; nothing is left to chance."""
        if self.path is None:
            raise InputError("stream.path is missing: name the table, stream.path=FILE.csv")
        if images.transform is not None:
            raise InputError("stream=replay takes its shifts from the table: leave out shift=")
        lines = _read(Path(self.path).expanduser())
        rows = _find(lines, images, self.path)
        shifts: dict[Shift | None, int] = {}
        which = [shifts.setdefault(_shift(line, place, self.path), len(shifts)) for place, line in enumerate(lines)]
        return Stream(rows, tuple(shifts), np.array(which))


def _sortable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers and dates as they are; text as numbers where it is numbers, for "9" comes before "10"."""
    if values.dtype.kind in "iufM":
        return values
    text = np.array(values.tolist(), dtype=str)  # numpy cannot cast its variable-width text
    try:
        return text.astype(float)
    except ValueError:
        return text


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the stream's table {path} cannot be read ({error}): check stream.path") from error
    if "id" not in columns:
        raise InputError(f"{path} has the columns {', '.join(columns) or '(none)'}: expected {', '.join(COLUMNS)}, at least id")
    if not lines:
        raise InputError(f"{path} has no items: check stream.path")
    return lines


def _find(lines: list[dict[str, str]], images: ImageSet, path: str) -> Order:
    """The row of each line's image: by its id, and where ids are not unique by its row."""
    ids = images.ids.tolist()
    places = {name: row for row, name in enumerate(ids)}
    rows = np.empty(len(lines), dtype=np.int64)
    for place, line in enumerate(lines):
        row = places.get(line["id"], -1)
        if row >= 0 and len(places) < len(ids):
            number = line.get("row") or ""
            row = int(number) if number.isdigit() and int(number) < len(ids) and ids[int(number)] == line["id"] else -1
        if row < 0:
            raise InputError(
                f"{path}, line {place + 2}: the target has no image {line['id']!r} there: "
                "replay a stream on the data that it was made from"
            )
        rows[place] = row
    return rows


def _shift(line: dict[str, str], place: int, path: str) -> Shift | None:
    names = line.get("shift") or "none"
    if names == "none":
        return None
    try:
        severities = [int(severity) for severity in (line.get("severity") or "3").split("+")]
        parts = tuple(zip(names.split("+"), severities, strict=True))
        seed = int(line.get("seed") or 0)
    except ValueError as error:
        raise InputError(
            f"{path}, line {place + 2}: shift {names!r} with severity {line.get('severity')!r} and seed {line.get('seed')!r} "
            "is not of the form noise+blur, 3+5, 0"
        ) from error
    try:
        return Shift(parts, seed)
    except InputError as error:
        raise InputError(f"{path}, line {place + 2}: {error}") from error
