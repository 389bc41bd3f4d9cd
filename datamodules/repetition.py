"""Images that a table lists several times: rows that say the same count again, and rows that
contradict each other are refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.labels import as_read
from holdfast.datamodules.rows import Records
from holdfast.datamodules.splits import hashes, plain
from holdfast.tta.errors import InputError

Rows = npt.NDArray[np.intp]
#: What is said of the same images by one row and by another, as (N,) words each, and what to do.
_Said = tuple[npt.NDArray[Any], npt.NDArray[Any], str]


def check_repeated(
    records: Records, rows: Rows, missing: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Refuse an image that is listed again with another label, finding or mask; those with the same
    count again, which a note tells.

    Args:
        records: of all splits.
        rows: (N,) those that are meant.
        missing: labels that stand for none, as ``data.missing``.

    Raises:
        InputError: there is such an image.
    """
    ids = records.names[rows]
    _, first, of_row = np.unique(hashes(plain(ids)), return_index=True, return_inverse=True)
    again = np.setdiff1d(np.arange(len(ids)), first)
    if not len(again):
        return ()
    for before, after, remedy in _said(records, rows[first[of_row[again]]], rows[again], missing):
        differing = np.flatnonzero(before != after)
        if len(differing):
            at = differing[0]
            raise InputError(
                f"{records.origin} lists {ids[again[at]]} as {before[at]} and as {after[at]}: keep "
                f"one row an image, {remedy}"
            )
    return (f"{len(again)} row(s) list an image again, which then counts as often",)


def _said(
    records: Records, one: Rows, other: Rows, missing: Sequence[str] | None
) -> Iterator[_Said]:
    """What some rows say of images, and other rows of the same ones, as readers take it."""
    labels = as_read(records.labels, records.class_names, missing)
    yield (
        *(labels[one], labels[other]),
        "or read several findings of an image, data.task=multilabel",
    )
    if records.findings is not None:
        for name, values in zip(records.findings.names, records.findings.values.T, strict=True):
            words = np.array([f"{name} {word}" for word in ("absent", "present", "unknown")])
            codes = np.where(np.isfinite(values), values, 2).astype(int)
            yield words[codes[one]], words[codes[other]], "with all of its findings"
    if records.masks is not None:
        for paths in _masks(records.masks.paths):
            yield paths[one], paths[other], "with its mask"


def _masks(paths: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Columns of files of masks, in words."""
    for column in paths.T:
        files = plain(column)
        yield np.where(files == "", "without a mask", np.strings.add("masked by ", files))
