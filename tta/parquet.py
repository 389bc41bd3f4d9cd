"""Predictions as a Parquet file: typed, small, and with text as it is."""

import csv
from pathlib import Path
from typing import Any

from holdfast.tta.errors import InputError


def check_parquet() -> None:
    """Refuse early what would fail at the end.

    Raises:
        InputError: the package for it is not there.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            "predictions.parquet=true needs a package that is not installed: pip install "
            '"holdfast[parquet]"'
        ) from error


def to_parquet(path: Path, target: Path) -> None:
    """Turn a CSV file of ours into Parquet, block by block.

    Args:
        path: the CSV file; its numbers become numbers, its text is taken out of the quotes for
            spreadsheets.
        target: the Parquet file.
    """
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    with path.open(newline="", encoding="utf-8") as file:
        names = next(csv.reader(file))
    types = {name: pa.float32() if _is_number(name) else pa.string() for name in names}
    reading = {
        "parse_options": pc.ParseOptions(newlines_in_values=True),
        "convert_options": pc.ConvertOptions(column_types=types, strings_can_be_null=False),
    }
    with pc.open_csv(path, **reading) as blocks, pq.ParquetWriter(target, blocks.schema) as writer:
        for block in blocks:
            plain = [_unquoted(column) for column in block.columns]
            writer.write_batch(pa.record_batch(plain, schema=blocks.schema))


def _is_number(name: str) -> bool:
    return name == "confidence" or name.startswith("prob")


def _unquoted(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as compute

    if not pa.types.is_string(column.type):
        return column
    marked = compute.starts_with(column, "'")
    return compute.if_else(marked, compute.utf8_slice_codeunits(column, 1), column)
