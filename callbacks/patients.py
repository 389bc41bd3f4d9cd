"""``patients.csv``: what was served, a patient or slide a row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.callbacks.columns import Columns, Known
from holdfast.tta.csvfile import RowFile
from holdfast.tta.scores import pooled


def write_patients(
    path: Path,
    probabilities: Tensor,
    groups: npt.NDArray[Any],
    domains: Sequence[str],
    known: Known,
    class_names: Sequence[str],
    columns: str = "all",
    decide: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Write the mean prediction of each group, as ``data.aggregate=group`` scores it: once in each
    domain.

    What is known of a group's images stands behind it where all say the same, and is empty where
    they do not.

    Args:
        path: the file.
        probabilities: (N, C) as served, in stream order.
        groups: (N,) patient or slide of each image.
        domains: (N,) domain of each image.
        known: (N,) further columns by name.
        class_names: names of the C classes.
        columns: which probabilities, as ``PredictionsConfig.columns``.
        decide: from probabilities to classes (N,); None: the likeliest.
    """
    unlabelled = torch.full((len(groups),), -1)
    first, member, means, _ = pooled(probabilities, unlabelled, groups, domains)
    counts = torch.bincount(member, minlength=len(first))
    shown = Columns(columns, class_names)
    said = means.argmax(1) if decide is None else decide(means)
    confidences = means.gather(1, said[:, None])[:, 0].tolist()
    names = ["group", "images", "prediction", "confidence", *shown.names]
    told = {
        name: _agreed(values, member.numpy(), len(first))
        for name, values in known.items()
        if name not in names
    }
    rows = zip(
        groups[first].tolist(),
        counts.tolist(),
        [class_names[label] for label in said.tolist()],
        [f"{confidence:.6f}" for confidence in confidences],
        shown.cells(means),
        zip(*told.values(), strict=True),
        strict=True,
    )
    file = RowFile(path)
    try:
        file.write([[*names, *told]])
        file.write([[*row, *cells, *more] for *row, cells, more in rows])
    finally:
        file.close()


def _agreed(values: npt.NDArray[Any], member: npt.NDArray[np.int64], count: int) -> list[Any]:
    """What all that is known of a group's images says; empty where it says several things."""
    found: list[Any] = [""] * count
    odd = set()
    for group, value in zip(member.tolist(), values.tolist(), strict=True):
        if value == "" or group in odd:
            continue
        if found[group] == "":
            found[group] = value
        elif found[group] != value:
            odd.add(group)
    return ["" if group in odd else value for group, value in enumerate(found)]
