"""The benchmark's tables: CSV files that grow by whole blocks of rows, so that a killed run leaves
them readable.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.benchmarks.grid import Setting
from holdfast.tta.csvfile import csv_lines, unquoted
from holdfast.tta.errors import InputError

Row = dict[str, Any]

csv.field_size_limit(2**30)  # a cell may hold a whole stream's predictions

#: What names a stream, and a cell.
STREAM_KEYS = Setting._fields
CELL_KEYS = (*STREAM_KEYS[:-1], "method", "lr", "seed")
#: Columns that hold names, which may look like numbers: sites are often numbered.
_TEXTS = ("data", "target", "network", "shift", "stream", "method", "policy")
#: A row a cell and policy: balanced accuracies in percent, the rest as the docs describe it.
RESULTS = (
    *CELL_KEYS,
    *("policy", "source", "control", "unguarded", "unguarded_last", "guarded", "guarded_last"),
    *("alarms", "resets", "first_alarm_batch", "loss_before_alarm", "seconds"),
)
#: The normalisations without updates that ``auto`` chooses among, and how adapt.py is asked for
#: each.
NORMALIZATIONS = {
    "source": ("method=source",),
    "blend_0.1": ("method=alpha_norm", "method.alpha=0.1"),
    "blend_0.3": ("method=alpha_norm", "method.alpha=0.3"),
    "blend_0.5": ("method=alpha_norm", "method.alpha=0.5"),
    "ema_0.02": ("method=norm_ema", "method.momentum=0.02"),
    "batch": ("method=norm",),
}
#: A row a stream: ``batch`` is the control; ``auto`` is chosen without labels, empty where that is
#: not to be had.
REFERENCES = (
    *STREAM_KEYS,
    "model",
    "images",
    "source_last",
    "control_last",
    *NORMALIZATIONS,
    "auto",
)


def key_of(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The columns that name a row, as they are written."""
    return tuple(_text(row[name]) for name in names)


def append(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows in one write, and see it to the disk; a new file gets its header with it."""
    lines: list[Sequence[str]] = [] if path.exists() else [columns]
    lines += [[_text(row.get(column)) for column in columns] for row in rows]
    with path.open("a", newline="") as file:
        file.write(csv_lines(lines))
        file.flush()
        os.fsync(file.fileno())


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table anew; a run that is stopped meanwhile leaves the older one whole."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    append(part, columns, rows)
    part.replace(path)


def read(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """All rows, empty entries as None and names as text; a last line that was cut off is taken out
    of the file.

    Args:
        path: the table; one that is not there has no rows.
        columns: what it must have.

    Raises:
        InputError: it lacks some of them, as tables of earlier versions do.
    """
    if not path.is_file():
        return []
    text = path.read_bytes().decode()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_bytes(whole.encode())
    rows = csv.DictReader(io.StringIO(whole))
    absent = [name for name in columns if name not in (rows.fieldnames or columns)]
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]}: it was written by another version; choose another "
            "folder, output=DIR"
        )
    return [
        {
            key: unquoted(value) if key in _TEXTS and value else _value(unquoted(value))
            for key, value in row.items()
        }
        for row in rows
    ]


def latest(rows: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """The last row of each name: tables of several shards, or of a repeated run, put one after the
    other.
    """
    return list({key_of(row, names): row for row in rows}.values())


def merge(
    folder: Path,
    parts: Sequence[Path],
    names: Mapping[str, Sequence[str]],
    columns: Mapping[str, Sequence[str]],
) -> None:
    """Put the tables of shards together, each row once.

    Args:
        folder: where they go; what is there already counts too.
        parts: outputs of shards.
        names: the tables, with the columns that name a row of each.
        columns: of each table.

    Raises:
        InputError: a part has no results.
    """
    for part in parts:
        if not (part / "results.csv").is_file():
            raise InputError(
                f"{part} has no results.csv: merge takes the outputs of finished shards"
            )
    for name, keys in names.items():
        rows = [row for part in [folder, *parts] for row in read(part / f"{name}.csv", keys)]
        write(folder / f"{name}.csv", columns[name], latest(rows, keys))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(text: str) -> Any:
    if text == "":
        return None
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return text
