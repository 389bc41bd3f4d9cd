"""Labels, masks and findings in arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.arrays import Arrays
from holdfast.datamodules.conventions import UNLABELLED, Strings
from holdfast.datamodules.formats.decoded import Decoded, Unreadable
from holdfast.datamodules.maskvalues import Values, discovered, values_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError


def counted_within(arrays: Arrays, path: Path, name: str) -> Arrays:
    """The masks, with pixels outside of others left out of account."""
    if name not in arrays:
        raise InputError(f"{path} has no key {name!r} (data.within): {closest(name, arrays)}")
    masks, inside = arrays.get("masks"), arrays.pop(name)
    if masks is None or masks.shape != inside.shape:
        raise InputError(f"{path}: {name} has not the shape of masks: leave data.within out")
    signed = masks.astype(np.int16)
    signed[inside == 0] = UNLABELLED
    return {**arrays, "masks": signed}


def labels_in(arrays: Arrays, count: int, path: Path) -> Strings:
    """Labels as text; those of a multi-label file, or of no whole file, are refused."""
    if "labels" not in arrays:
        return np.full(count, "")
    labels = arrays["labels"]
    if labels.size != count or labels.dtype.kind not in "iufUTb":
        raise InputError(
            f"{path}: labels have shape {labels.shape} and type {labels.dtype}: expected one "
            "number or "
            f"name for each of {count} images"
        )
    return (labels.astype(int) if labels.dtype.kind == "b" else labels).reshape(-1).astype(str)


def with_classes(
    masks: npt.NDArray[Any],
    rows: npt.NDArray[np.bool_],
    given: tuple[str, ...],
    labels: Any,
    path: Path,
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Masks of some images with their values as classes, -1 where a pixel does not count, and the
    names of the classes.

    Args:
        masks: the file's, all of which say which classes there are.
        rows: (N,) which images.
        given: names of classes 0, 1, …, where the file has them.
        labels: what the values mean, as ``data.labels``.
        path: of the file, for messages.
    """
    part = masks[rows]
    if masks.dtype.kind not in "iu":  # which an image set refuses
        return part, given
    values = _values(masks)
    if labels is not None:
        meant = values_of(labels)
    else:
        meant = discovered([_as_mask(values[values != UNLABELLED])], path)
        if len(given) >= len(meant.names):
            meant = Values(given, {code: code for code in range(len(given))})
    meant = Values(meant.names, {UNLABELLED: UNLABELLED, **meant.codes})
    try:
        codes = meant.numbered(_as_mask(values)).ravel()
    except Unreadable as error:
        raise InputError(f"{path} {error}") from error
    if not np.array_equal(codes, values):
        part = codes[np.searchsorted(values, part)]
    return part, meant.names


def _values(masks: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The values that masks hold, in order."""
    found: set[int] = set()
    for mask in masks:
        if mask.dtype == np.uint8:  # counting takes a hundredth of the time of sorting
            found.update(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())
        else:
            found.update(np.unique(mask).tolist())
    return np.array(sorted(found), dtype=np.int64)


def _as_mask(values: npt.NDArray[np.int64]) -> Decoded:
    return Decoded(values.reshape(-1, 1, 1), None)


def findings_in(arrays: Arrays, path: Path) -> npt.NDArray[np.float32]:
    """(N, L) 1 present, 0 absent, NaN unknown: as it is written, or -1."""
    values = arrays.get("findings", arrays.get("labels"))
    if values is None or values.ndim != 2 or values.dtype.kind not in "iufb":
        raise InputError(
            f"{path} has no findings: expected labels (N, L) of 1 (present), 0 (absent), and -1 or "
            "nan (unknown)"
        )
    found = values.astype(np.float32)
    found[found == UNLABELLED] = np.nan
    odd = found[~np.isnan(found) & (found != 0) & (found != 1)]
    if len(odd):
        raise InputError(
            f"{path}: labels hold {odd[0]:g}: a finding is 1 (present), 0 (absent), and -1 or nan "
            "where it is unknown"
        )
    return found


def finding_names(arrays: Arrays, given: tuple[str, ...] | None, path: Path) -> tuple[str, ...]:
    """Names of the findings; none where nothing is known of any image."""
    if "findings" not in arrays and "labels" not in arrays:
        return ()
    count = findings_in(arrays, path).shape[1]
    names = given or tuple(str(number) for number in range(count))
    if len(names) != count:
        raise InputError(f"{path}: class_names has {len(names)} names for {count} findings")
    return names


def masks_in(arrays: Arrays, path: Path) -> npt.NDArray[Any]:
    """(N, *spatial) whole numbers."""
    masks = arrays["masks"]
    if masks.ndim and masks.shape[-1] == 1 and masks.ndim == arrays["images"].ndim:
        masks = masks[..., 0]
    if masks.dtype.kind == "b":
        masks = masks.astype(np.uint8)
    if masks.dtype.kind == "f":
        whole = np.round(masks)
        if not np.array_equal(whole, masks):
            raise InputError(
                f"{path}: masks hold fractions: write the number of the class at each pixel, or "
                "cut probabilities at .5"
            )
        masks = whole.astype(np.int64)
    return masks
