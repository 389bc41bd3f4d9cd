"""What is known of a data set's files before any is opened: a table of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.findings import Findings
from holdfast.datamodules.maskfiles import MaskPaths
from holdfast.datamodules.maskvalues import Values


@dataclass(frozen=True)
class Records:
    """A table of image files, a row each; texts are StringDType, for there may be a million of
    them.

    Args:
        origin: file or folder that the rows come from, for messages.
        root: folder that the paths are relative to; nothing outside it is read.
        paths: (N,) paths as written.
        labels: (N,) class names, or numbers; empty where unknown.
        domains: (N,) domain of each image.
        groups: (N,) patient or slide; empty where unknown: the image is a group of its own.
        splits: (N,) train, val, test, or empty for what no training may touch; None: not known.
        class_names: of the classes, in order; None: those that occur.
        metadata: further columns.
        rois: (N,) path of what an image is cut down to; empty where it has none; None: there are
            none.
        masks: of the images; None: there are none.
        values: what masks hold; None: as ``data.labels`` says, or as they are.
        findings: of the images; None: there are none.
        ids: (N,) what images are called; None: as their paths.
        further: (N, K) paths of the files of further channels; None: an image is one file.
        notes: what was found beside them, a few words each.
    """

    origin: Path
    root: Path
    paths: Strings
    labels: Strings
    domains: Strings
    groups: Strings
    splits: Strings | None = None
    class_names: tuple[str, ...] | None = None
    metadata: Mapping[str, Strings] = field(default_factory=dict)
    rois: Strings | None = None
    masks: MaskPaths | None = None
    values: Values | None = None
    findings: Findings | None = None
    ids: Strings | None = None
    further: npt.NDArray[Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> Strings:
        """(N,) what images are called."""
        return self.paths if self.ids is None else self.ids


def text(values: Iterable[str]) -> Strings:
    """A column of text that takes as much memory as it has letters."""
    return np.array(list(values), dtype=np.dtypes.StringDType())


def repeated(value: str, count: int) -> Strings:
    """A column that says the same in each row."""
    return np.full(count, value, dtype=np.dtypes.StringDType())
