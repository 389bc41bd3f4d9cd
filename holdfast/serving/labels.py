"""Labels that are posted: checked, and added to the file that the guard reads."""

import threading
from collections.abc import Sequence
from pathlib import Path

from holdfast.datamodules.labelfile import LabelFile
from holdfast.serving.answers import Label
from holdfast.tta.csvfile import RowFile
from holdfast.tta.errors import InputError

NAME = "labels.csv"


class LabelBox:
    """Adds labels to ``labels.csv``, whole rows alone.

    Args:
        folder: of the results.
        class_names: names of the classes.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path, self._lock = folder / NAME, threading.Lock()
        self._known = LabelFile(self.path, class_names)
        size = _whole(self.path)
        state = {"size": size, "rows": 0, "link": None} if size else None
        self._file = RowFile(self.path, None, state)
        if not size:
            self._file.write([["id", "label"]])

    def add(self, labels: Sequence[Label]) -> int:
        """Add labels, all or none; returns how many.

        Raises:
            InputError: one is no class.
            WriteError: the disk takes no more.
        """
        for label in labels:
            reason = self._known.refused(label.label)
            if reason:
                raise InputError(reason)
        with self._lock:
            self._file.write([[label.id, label.label] for label in labels])
        return len(labels)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole(path: Path) -> int | None:
    """Bytes of a file's whole lines; None where there is none."""
    try:
        return path.read_bytes().rfind(b"\n") + 1
    except FileNotFoundError:
        return None
