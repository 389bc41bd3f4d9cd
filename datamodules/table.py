"""A table of image files: CSV, or Parquet where pyarrow is installed."""

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.findings import Findings, from_columns, from_lists
from holdfast.datamodules.images import ImageSet, Split
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.records import Records, images_of, repeated, text
from holdfast.datamodules.settings import AUTO, FilesConfig
from holdfast.datamodules.targets import FindingTarget, kind_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.options import option
from holdfast.tta.settings import TARGET

_CHUNK = 65536  # rows that are Python objects at a time
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
#: How a file begins that is a ZIP archive, as workbooks are.
_ZIPPED = b"PK\x03\x04"
#: What spreadsheets write and read as a CSV file's first line: sep=;
_SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_KNOWN = ("path", "label", "split", "domain", "group", "mask", "roi")
#: Those of them that name files.
_FILES = ("path", "mask", "roi")
#: What the columns of a mask for each class begin with.
_MASK = "mask:"
#: What columns are called that say where an image comes from.
_LIKE_DOMAIN = (
    "site",
    "hospital",
    "center",
    "centre",
    "clinic",
    "institution",
    "scanner",
    "vendor",
)


@dataclass
class TableConfig(FilesConfig):
    """A CSV or Parquet table with columns path, label, split, domain, group, mask, roi (all but
    path may be absent) and metadata.
    """

    path: str | None = option(None, "the table; its paths are relative to its folder")
    source: str | list[str] | None = option(
        None, "domain, or domains, to train on; null: all but data.target"
    )
    target: str | list[str] | None = option(*TARGET)


def load_table(config: TableConfig, split: Split) -> ImageSet:
    """Read a split.

    Raises:
        InputError: a missing or malformed table, or what ``images_of`` raises.
    """
    if config.path is None:
        raise InputError("data.path is missing: name the table, data.path=FILE.csv")
    path = Path(config.path).expanduser()
    columns = _trimmed(_named(read_table(path)))
    if "path" not in columns:
        raise InputError(f"{path} has no column path: {closest('path', columns)}")
    count = len(columns["path"])
    empty = repeated("", count)
    findings = _findings(columns, config, path)
    used = (*_KNOWN, *(findings.names if findings else ()))
    records = Records(
        origin=path,
        root=path.parent,
        paths=columns["path"],
        labels=empty if findings else columns.get("label", empty),
        domains=columns.get("domain", repeated(path.stem, count)),
        groups=columns.get("group", empty),
        splits=columns.get("split"),
        metadata={
            name: values
            for name, values in columns.items()
            if name not in used and not name.startswith(_MASK)
        },
        rois=_rois(columns, config, path),
        masks=_masks(columns, path),
        findings=findings,
        notes=_undivided(columns),
    )
    return images_of(records, config, split, config.source, config.target)


def _rois(columns: dict[str, Strings], config: TableConfig, path: Path) -> Strings | None:
    if config.around_roi is not None and "mask" in columns and "roi" not in columns:
        raise InputError(
            f"{path} has a column mask and none called roi: what data.around_roi looks at is "
            "called roi, and masks are what segmentation learns"
        )
    return columns.get("roi")


def _masks(columns: dict[str, Strings], path: Path) -> MaskPaths | None:
    """Maps in the column mask, or files in columns mask:CLASS."""
    named = [name for name in columns if name.startswith(_MASK)]
    if named and "mask" in columns:
        raise InputError(
            f"{path} has a column mask and others for each class ({', '.join(named)}): keep one or "
            "the other"
        )
    if named:
        files = np.stack([columns[name] for name in named], axis=1)
        return MaskPaths(files, tuple(name.removeprefix(_MASK).strip() for name in named))
    return MaskPaths(columns["mask"][:, None]) if "mask" in columns else None


def _findings(columns: dict[str, Strings], config: TableConfig, path: Path) -> Findings | None:
    """Columns of findings, or lists in the column label."""
    names = config.findings
    if config.task == AUTO and names is None:
        return None
    if config.task != AUTO and kind_of(config.task) is not FindingTarget:
        return None
    if names and any(name in columns for name in names):
        for name in names:
            if name not in columns:
                raise InputError(
                    f"{path} has no column {name!r} (data.findings): {closest(name, columns)}"
                )
        found = [columns[name] for name in names]
        return from_columns(found, names, path, config.uncertain, config.unmentioned)
    if "label" not in columns:
        if config.findings is None:  # a target of which nothing is known
            return None
        raise InputError(
            f"{path} has no column {config.findings[0]!r}, and no column label with lists of "
            f"findings: {closest(config.findings[0], columns)}"
        )
    return from_lists(columns["label"], path, names)


def _undivided(columns: dict[str, Strings]) -> tuple[str, ...]:
    """A note on a column that looks as if it divided the images, where none is called domain."""
    if "domain" in columns:
        return ()
    likely = [
        name
        for name, values in columns.items()
        if name.lower() in _LIKE_DOMAIN and len(np.unique(values)) > 1
    ]
    return tuple(
        f"no column is called domain, so all images are of one; if {name} divides them, call that "
        "column domain"
        for name in likely[:1]
    )


def read_table(path: Path) -> dict[str, Strings]:
    """The columns of a CSV (or TSV, or semicolon-separated) or Parquet file, all as text; missing
    values are empty.

    Raises:
        InputError: no such file, or it is malformed.
    """
    if not path.is_file():
        raise InputError(f"the table {path} does not exist: expected {path.name} in {path.parent}")
    return _read_table(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # train, val and test come from the same table
def _read_table(path: Path, modified: int) -> dict[str, Strings]:
    try:
        columns = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path)
    except UnicodeDecodeError as error:  # of the eight-bit encodings nobody can tell which it is
        raise InputError(
            f"{path} is not in UTF-8: save it so (in Excel: CSV UTF-8), or convert it, for "
            "instance "
            f"iconv -f cp1252 -t utf-8 {path.name} > utf8.csv"
        ) from error
    except (OSError, csv.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable table ({said(error, path)})") from error
    if not columns or not len(next(iter(columns.values()))):
        raise InputError(f"{path} has no rows")
    return columns


def _named(columns: dict[str, Strings]) -> dict[str, Strings]:
    """The columns, those that have a meaning called by it however their name is capitalised."""
    alike = {
        name: [written for written in columns if written.lower() == name]
        for name in _KNOWN
        if name not in columns
    }
    meant = {written[0]: name for name, written in alike.items() if len(written) == 1}
    return {meant.get(written, written): values for written, values in columns.items()}


def _trimmed(columns: dict[str, Strings]) -> dict[str, Strings]:
    """The columns without blanks around their values, which would make two patients, or domains, of
    one; names of files stay as they are.
    """
    return {
        name: values if name in _FILES or name.startswith(_MASK) else np.strings.strip(values)
        for name, values in columns.items()
    }


def encoding_of(path: Path) -> str:
    """The encoding of a text file by the mark at its beginning; UTF-8 where there is none."""
    with path.open("rb") as file:
        start = file.read(4)
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if start == _ZIPPED:
        raise InputError(f"{path} is an Excel workbook by its content: save it as CSV UTF-8")
    if b"\0" in start:
        raise InputError(f"{path} is UTF-16 without a mark that says so: save it as UTF-8")
    return "utf-8-sig"


def _read_csv(path: Path) -> dict[str, Strings]:
    if path.suffix.lower() in _SHEETS:
        raise InputError(f"{path} is a spreadsheet: save it as CSV, in UTF-8")
    with path.open(newline="", encoding=encoding_of(path)) as file:
        return columns_of(file, path)


def columns_of(file: TextIO, path: Path, growing: bool = False) -> dict[str, Strings]:
    """The columns of a CSV file, a TSV, or one with semicolons.

    Args:
        file: its text, from the beginning.
        path: where it comes from, for messages.
        growing: whether a last row with an open quote is one that is being written; it is left out.

    Raises:
        InputError: a column is named twice, or a row has too few values or too many.
        csv.Error: a quote is not closed.
    """
    first, line = file.readline(), 1
    named = _SEPARATOR.fullmatch(first)
    if named:  # a line for spreadsheets, before the header
        line += 1
    else:
        file.seek(0)
    delimiter = named[1] if named else max(",;\t", key=first.count)
    rows = _rows(file, delimiter, growing)
    header = [name.strip() for name in next(rows, [])]
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice: {', '.join(header)}")
    parts: list[list[Strings]] = [[] for _ in header]
    while chunk := list(islice(rows, _CHUNK)):
        chunk = [row for row in chunk if row]
        for row in chunk:
            line += 1
            if len(row) != len(header):
                raise InputError(
                    f"{path}, row {line}: has {len(row)} values, where the header names "
                    f"{len(header)} columns"
                )
        for part, values in zip(parts, zip(*chunk, strict=True), strict=False):
            part.append(text(values))
    none = text(())
    return {name: np.concatenate([none, *part]) for name, part in zip(header, parts, strict=True)}


def _rows(file: TextIO, delimiter: str, growing: bool) -> Iterator[list[str]]:
    """The rows of a CSV file, of which the last may have an open quote, which swallowed all lines
    behind it; that is an error, unless the file grows. A quote within a value is not.
    """
    lines: list[str] = []  # of the row at hand

    def kept() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    last: list[str] = []
    held: list[str] | None = None  # until it is known whether it is the last
    for row in csv.reader(kept(), delimiter=delimiter):
        if held is not None:
            yield held
        held, last[:] = row, lines
        lines.clear()
    if not _open(last, delimiter):
        yield from () if held is None else [held]
    elif not growing:
        raise csv.Error("a quote is not closed")


def _open(lines: Sequence[str], delimiter: str) -> bool:
    """Whether a row ends within quotes: another line would belong to its last value."""
    probe = [*lines, "\n"]
    return bool(lines) and len(list(csv.reader(probe, delimiter=delimiter))) == 1


def _read_parquet(path: Path) -> dict[str, Strings]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f'{path} needs pyarrow: pip install "holdfast[parquet]", or save the table as CSV'
        ) from error
    parts: dict[str, list[Strings]] = {}
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_CHUNK):
            for name, values in zip(batch.schema.names, batch.columns, strict=True):
                parts.setdefault(name, []).append(text(map(_plain, values.to_pylist())))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _plain(value: Any) -> str:
    """A value as CSV would have it; whole numbers in a column of floats, which gaps make of
    integers, without the point.
    """
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
