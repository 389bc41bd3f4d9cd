"""CSV files as the project writes them: safe in spreadsheets, loss-free, and of whole rows whatever
happens to the disk.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.tta.growing import GrowingFile, size_in

#: The column of links in a chained file.
LINK = "chain"
#: A cell that begins so is a formula to a spreadsheet, also behind blanks and in full-width
#: letters.
_FORMULA = re.compile(r"[\t\r\n']|\s*[=+\-@＝＋－＠]")
_STARTS = frozenset("\t\r\n' =+-@＝＋－＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")


def quoted(text: str) -> str:
    """A cell that no spreadsheet runs: behind an apostrophe where it would be a formula, or begins
    with one.

    >>> [quoted(text) for text in ("scan 7", "=1+1", "-3.5", "'x")]
    ['scan 7', "'=1+1", '-3.5', "''x"]
    """
    if not text or (text[0] not in _STARTS and not text[0].isspace()):
        return text
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unquoted(text: str) -> str:
    """What ``quoted`` was given.

    >>> [unquoted(text) for text in ("scan 7", "'=1+1", "''x")]
    ['scan 7', '=1+1', "'x"]
    """
    return text.removeprefix("'")


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the lines of a CSV file; text is ``quoted``, numbers are not."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    for row in rows:
        writer.writerow([quoted(cell) if isinstance(cell, str) else cell for cell in row])
    return lines.getvalue()


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file that the project wrote, by column, with text as it was before it was
    quoted.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        columns = [unquoted(name) for name in next(reader, [])]
        for row in filter(None, reader):  # but blank lines
            yield dict(zip(columns, map(unquoted, row), strict=False))


#: Hexadecimal digits of a link.
_LINK = 16


def link_of(link: str, line: bytes) -> str:
    """What the line behind this one has as its link, so that none can be changed, dropped or put
    in without the chain showing it.

    Args:
        link: of this line; of the first one, what the chain begins with.
        line: as it stands in the file, with its end.
    """
    return hashlib.sha256(link.encode() + line).hexdigest()[:_LINK]


class RowFile(GrowingFile):
    """A file that grows by whole rows: of rows that do not fit on the disk none is left, not even
    in part.

    Args:
        path: the file.
        link: of a chained file, what its chain begins with: each row then ends with a link, the
            short hash of the line before; None: it is no chain.
        state: from ``state_dict``, to go on with the file; None: it is written anew.
    """

    def __init__(
        self, path: Path, link: str | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(path, size_in(state))
        self.rows = 0 if state is None else int(state["rows"])
        self.link = link if state is None else state["link"]

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, all or none.

        Raises:
            WriteError: the disk takes no more, or the file was removed.
        """
        if self.link is None:
            self.write_lines(csv_lines(rows), len(rows))
        else:
            self._write_linked(lambda row, link: csv_lines([[*row, link]]), rows)

    def write_header(self, names: Sequence[str]) -> None:
        """Add the names of the columns, and of a chained file that of the links."""
        line = csv_lines([names if self.link is None else [*names, LINK]])
        self._add(_encoded(line), 1)
        if self.link is not None:
            self.link = link_of(self.link, _encoded(line))

    def write_objects(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Add dictionaries, each a line of JSON, all or none."""
        if self.link is None:
            self.write_lines("".join(json.dumps(one) + "\n" for one in objects), len(objects))
        else:
            self._write_linked(lambda one, link: json.dumps({**one, LINK: link}) + "\n", objects)

    def write_lines(self, lines: str, rows: int) -> None:
        """Add lines that are ready, all or none."""
        self._add(_encoded(lines), rows)

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on with the file."""
        return {"size": self.size, "rows": self.rows, "link": self.link}

    def _write_linked(self, line_of: Callable[[Any, str], str], rows: Sequence[Any]) -> None:
        assert self.link is not None
        link, lines = self.link, []
        for row in rows:
            lines.append(_encoded(line_of(row, link)))
            link = link_of(link, lines[-1])
        self._add(b"".join(lines), len(rows))
        self.link = link

    def _add(self, lines: bytes, rows: int) -> None:
        self.append(lines, f"; the {self.rows} lines before are whole")
        self.rows += rows


def _encoded(lines: str) -> bytes:
    return lines.encode(errors="backslashreplace")
