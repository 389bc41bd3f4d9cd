"""What records say of a split's images: classes, findings, or masks."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import UNLABELLED
from holdfast.datamodules.labels import missing_noted, read_labels
from holdfast.datamodules.maskfiles import LabelFiles, values_in
from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.options import FilesConfig
from holdfast.datamodules.rows import Records
from holdfast.datamodules.targets import TaskName
from holdfast.tta.errors import InputError

#: Sizes of pixels that differ by no more are alike.
_ALIKE = 1.5


class Asked(NamedTuple):
    """What is asked of the records.

    Attributes:
        records: all rows.
        config: how they are read.
        files: the images of the split.
        rows: of the split.
        named: (N,) the rows that say which classes there are.
        target: the split is a target.
    """

    records: Records
    config: FilesConfig
    files: ImageFiles
    rows: npt.NDArray[np.intp]
    named: npt.NDArray[np.bool_]
    target: bool


class Known(NamedTuple):
    """What is known of the images of a split, as ``ImageSet`` has it."""

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    findings: npt.NDArray[np.float32] | None = None
    masks: LabelFiles | None = None
    notes: tuple[str, ...] = ()


def _labels_of(asked: Asked) -> Known:
    records, rows, named = asked.records, asked.rows, asked.named
    labels = read_labels(
        records.labels[named], records.origin, records.class_names, asked.config.missing
    )
    codes = np.full(len(named), UNLABELLED)
    codes[named] = labels.codes
    counted = records.labels[rows if asked.target else named]
    notes = missing_noted(counted, labels.missing)
    return Known(labels.names, codes[rows], notes=notes)


def _findings_of(asked: Asked) -> Known:
    found, none = asked.records.findings, np.full(len(asked.rows), UNLABELLED)
    if found is None:
        return Known((), none)
    return Known(found.names, none, found.values[asked.rows], notes=found.notes)


def _masks_of(asked: Asked) -> Known:
    records, none = asked.records, np.full(len(asked.rows), UNLABELLED)
    masks = records.masks
    if masks is None or not masks.known[asked.named].any():
        return Known((), none)
    values = records.values
    if asked.config.labels is not None:
        if masks.structures:
            raise InputError("data.labels is of maps, and each class has files of its own here")
        values = values_of(asked.config.labels)
    if values is None:
        values = values_in(asked.files.root, masks.subset(asked.named), records.origin)
    files = LabelFiles(asked.files, masks.subset(asked.rows), values, asked.config.cache)
    return Known(values.names, none, masks=files, notes=_mixed(asked.files, asked.config))


def _mixed(files: ImageFiles, config: FilesConfig) -> tuple[str, ...]:
    """A note on images whose pixels are of several sizes."""
    spacing = files.facts.spacing
    if config.spacing is not None or all(high <= _ALIKE * low for low, high in spacing):
        return ()
    shown = ", ".join(f"{low:.3g} to {high:.3g}" for low, high in spacing)
    return (
        f"pixels are of several sizes ({shown} mm along the axes): data.spacing=MM would bring all "
        "to one",
    )


KNOWN: dict[TaskName, Callable[[Asked], Known]] = {
    "single": _labels_of,
    "multilabel": _findings_of,
    "segmentation": _masks_of,
}


def task_of(records: Records, config: FilesConfig) -> TaskName:
    """What is asked for, or what the records have."""
    if config.task != "auto":
        return config.task
    if records.task != "single" and (records.labels != "").any():
        raise InputError(
            f"{records.origin} has labels, and masks or findings: say which are meant, "
            f"data.task=single or data.task={records.task} (a mask that images are cut down to is "
            "called roi)"
        )
    return records.task
