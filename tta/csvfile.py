"""CSV files as the project writes them: safe in spreadsheets, loss-free, and of whole rows whatever
happens to the disk.
"""

import csv
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.tta.folder import write_error

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


class RowFile:
    """A file that grows by whole rows: of rows that do not fit on the disk none is left, not even
    in part.

    Args:
        path: the file, written anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._size = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise write_error(error, path) from error

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, all or none.

        Raises:
            WriteError: the disk takes no more, or the file was removed.
        """
        self.write_lines(csv_lines(rows), len(rows))

    def write_lines(self, lines: str, rows: int) -> None:
        """Add lines that are ready, all or none."""
        left = memoryview(lines.encode(errors="backslashreplace"))
        size = self._size + len(left)
        try:
            if not os.fstat(self._file.fileno()).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile")
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:  # also an interrupt between two parts
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            if isinstance(error, OSError):
                told = f"; the {self.rows} rows before are whole"
                raise write_error(error, self.path, told) from error
            raise
        self._size, self.rows = size, self.rows + rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()
