"""The tables of a benchmark: CSV files that grow by whole blocks of rows, so that a killed run
leaves them readable; and what names a row of each.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.grid import Setting
from holdfast.tta.csvfile import csv_lines, unquoted
from holdfast.tta.errors import InputError

Row = dict[str, Any]


class Table(NamedTuple):
    """A table of a study: the columns that name a row, and all columns."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]


#: What names a stream, and a cell.
STREAM_KEYS = Setting._fields
CELL_KEYS = (*STREAM_KEYS[:-1], "method", "lr", "seed")
#: What names a row of a cell under one guard; "off" is the method left alone.
POLICY_KEYS = (*CELL_KEYS, "policy")
#: Columns that hold names, which may look like numbers: sites are often numbered.
_TEXTS = ("data", "target", "network", "shift", "stream", "method", "policy")
#: Which figure the scores of a row are, the one that its task watches: of labels balanced accuracy,
#: of masks Dice. Tables of earlier versions get the column when rows join them.
METRIC = "metric"
#: A row a cell and policy: scores in percent, the rest as the docs describe it.
RESULTS = (
    *POLICY_KEYS,
    *("source", "control", "unguarded", "unguarded_last", "guarded", "guarded_last"),
    *("alarms", "resets", "first_alarm_batch", "loss_before_alarm", "seconds"),
    METRIC,
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
    *(*STREAM_KEYS, "model", "images", "source_last", "control_last"),
    *(*NORMALIZATIONS, "auto"),
)
#: The tables of the study of guards.
GUARD = {
    "results": Table(POLICY_KEYS, RESULTS),
    "references": Table(STREAM_KEYS, REFERENCES),
    "errors": Table(POLICY_KEYS, (*POLICY_KEYS, "error")),
}

#: What names the stream of a run, which may have any length, and the run.
RUN_STREAM = (*STREAM_KEYS[:-1], "images", "seed")
RUN_KEYS = (*RUN_STREAM, "method", "optimizer", "lr", "policy")
#: What is measured of a run, and again of its last quarter, under names that end in ``_last``; what
#: a task watches stands in the place of balanced accuracy, as ``METRIC`` says.
MEASURES = ("beta", "tv", "balanced_accuracy", "auroc", "largest")
LAST = tuple(f"{name}_last" for name in MEASURES)
#: The tables of the other studies: a row a run.
RUNS = {
    "results": Table(RUN_KEYS, (*RUN_KEYS, *MEASURES, *LAST, "resets", "seconds", METRIC)),
    "errors": Table(RUN_KEYS, (*RUN_KEYS, "error")),
}


def check_balanced(metrics: Iterable[str | None]) -> None:
    """Refuse figures for which study=paper has no words; one that is not known is no such.

    Raises:
        InputError: there is one.
    """
    other = sorted({metric for metric in metrics if metric} - {"balanced_accuracy"})
    if other:
        raise InputError(
            f"study=paper is about one label an image, and some runs are scored by {other[0]}: "
            "take study=measured, with another output=DIR"
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
    return [{key: _value(key, unquoted(text)) for key, text in row.items()} for row in rows]


def latest(rows: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """The last row of each name, where runs were repeated."""
    return list({key_of(row, names): row for row in rows}.values())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(column: str, text: str) -> Any:
    if text == "":
        return None
    if column in _TEXTS:
        return text
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return text
