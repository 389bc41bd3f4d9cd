"""The predictions of every run of the benchmark, kept small as a table, so that what depends on
them can be computed later.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from holdfast.benchmarks.tables import CELL_KEYS, STREAM_KEYS, Row, key_of

Numbers = npt.NDArray[np.int64]

#: A row a run: classes in stream order, packed. The method left alone is policy "off"; rows of a
#: stream have no method, and as policy what they hold: labels, source, control, or which row of the
#: image set each image is.
PREDICTIONS = (*CELL_KEYS, "policy", "predictions")
#: What names a row.
PREDICTION_KEYS = (*CELL_KEYS, "policy")
#: What is kept of a stream once.
OF_STREAM = ("labels", "images", "source", "control")


def kept(keys: Mapping[str, Any], runs: Mapping[str, Tensor]) -> list[Row]:
    """Rows of the table.

    Args:
        keys: the stream's or the cell's.
        runs: whole numbers (N,) by policy.
    """
    return [
        {**keys, "policy": name, "predictions": packed(values.numpy())}
        for name, values in runs.items()
    ]


def of_streams(rows: Iterable[Row]) -> dict[tuple[str, ...], dict[str, Numbers]]:
    """What was kept of each stream, by its key; those that lack some of it are left out."""
    streams: dict[tuple[str, ...], dict[str, Numbers]] = {}
    for row in rows:
        if row["method"] is None:
            streams.setdefault(key_of(row, STREAM_KEYS), {})[row["policy"]] = unpacked(
                row["predictions"]
            )
    return {key: parts for key, parts in streams.items() if set(OF_STREAM) <= parts.keys()}


def packed(values: npt.NDArray[Any]) -> str:
    """Whole numbers as text: about a byte for four predictions of a few classes."""
    return base64.b64encode(zlib.compress(values.astype("<i4").tobytes(), 9)).decode()


def unpacked(text: str) -> Numbers:
    """What ``packed`` was given."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int64)
