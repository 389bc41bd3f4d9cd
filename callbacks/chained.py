"""Files whose lines are chained, read back line by line."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.tta.csvfile import LINK, link_of, unquoted

#: Hexadecimal digits of a seal.
_DIGITS = 16


class Misfit(Exception):
    """Something that does not fit; the message is a half-sentence, which names file and line."""


class ChainedLine(NamedTuple):
    """A line of a chained file.

    Attributes:
        number: from 1; of one with line breaks in its cells the first.
        cells: by column or key, as text of a CSV file, without the link.
        link: that the line behind it must have.
    """

    number: int
    cells: dict[str, Any]
    link: str


def seal_of(facts: Mapping[str, Any]) -> str:
    """What the chains of a run's lines begin with: the short hash of its source and its stream.

    Args:
        facts: the hashes of both, ``source`` and ``stream``.
    """
    return hashlib.sha256(f"{facts['source']}{facts['stream']}".encode()).hexdigest()[:_DIGITS]


def lines_of(path: Path, seal: str) -> Iterator[ChainedLine]:
    """The lines of a file, each of which is held against the one before.

    Args:
        path: a CSV file, or one of a JSON object a line.
        seal: what its chain begins with.

    Raises:
        Misfit: at the first line that is torn, or whose link is not that of the line before.
    """
    link = seal
    columns: list[str] = []
    is_csv = path.suffix == ".csv"
    for number, raw in _records(path):
        if not raw.endswith(b"\n"):
            raise Misfit(f"{path.name}, line {number}, is torn")
        cells = _cells(path, number, raw, columns if is_csv else None)
        if is_csv and not columns:
            columns, link = list(cells), link_of(link, raw)
            continue
        if cells.pop(LINK, None) != link:
            raise Misfit(
                f"{path.name}, line {number}, does not follow from the line before: one of them "
                "was changed, or one between them was dropped or put in"
            )
        link = link_of(link, raw)
        yield ChainedLine(number, cells, link)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each record: cells in quotes may hold line breaks."""
    number, record = 1, b""
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            record += line
            if path.suffix == ".csv" and record.count(b'"') % 2:
                continue
            yield number, record
            number, record = line_number + 1, b""
    if record:
        yield number, record


def _cells(path: Path, number: int, raw: bytes, columns: list[str] | None) -> dict[str, Any]:
    """What a line says; of the first line of a CSV file its columns."""
    try:
        if columns is None:
            return dict(json.loads(raw))
        [row] = csv.reader([raw.decode()])
        return dict(zip(columns or row, map(unquoted, row), strict=True))
    except (ValueError, TypeError, csv.Error) as error:
        raise Misfit(f"{path.name}, line {number}, is no line of such a file") from error
