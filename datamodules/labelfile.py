"""Labels that come in a file of their own, with the columns id and label, and may come late."""

import codecs
import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from holdfast.datamodules.conventions import MISSING, UNLABELLED, Strings
from holdfast.datamodules.labels import number_of, same
from holdfast.datamodules.table import columns_of, encoding_of
from holdfast.tta.config import closest
from holdfast.tta.csvfile import unquoted
from holdfast.tta.errors import InputError, said

#: Seconds after which a last line without an end is no longer one that is being written.
_RESTED = 60.0


class Labelled(NamedTuple):
    """What a file of labels holds.

    Attributes:
        labels: class by the image's id, in the order of the file; of an id that is there twice, the
            last one.
        refused: a sentence for each label that is no class.
    """

    labels: dict[str, int]
    refused: tuple[str, ...]


class LabelFile:
    """A file of labels that may grow while a run goes on.

    Args:
        path: CSV with the columns id and label; others are left alone. The header is enough to
            begin with.
        class_names: names of the classes. Numbers are matched by their value, and never count
            names, since nobody knows in which order a site has them.
        growing: whether a last row without an end may be one that is being written.
        called: the class that a site's own word stands for, None for no label
            (``data.classes``).
    """

    def __init__(
        self,
        path: str | Path,
        class_names: Sequence[str],
        growing: bool = True,
        called: Mapping[str, str | None] | None = None,
    ) -> None:
        self.path, self.growing = Path(path).expanduser(), growing
        self.class_names = tuple(class_names)
        places: dict[Any, int] = {same(name): n for n, name in enumerate(class_names)}
        missing = {same(word): UNLABELLED for word in ("", *MISSING)}
        meant = {
            same(word): UNLABELLED if name is None else places.get(same(name))
            for word, name in (called or {}).items()
        }
        self._codes: dict[Any, int | None] = {**missing, **places, **meant}
        self._stamp: tuple[int, ...] = ()

    def changed(self) -> bool:
        """Whether the file is another one than at the last look; False where it is gone."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return _stamp(found) != self._stamp

    def read(self) -> Labelled:
        """All labels, those that are no class left out and told of; a last row that is half
        written, within quotes or a letter maybe, is left for later.

        Raises:
            InputError: the file cannot be read, or has no such columns.
        """
        columns = self._columns()
        words = [word.strip() for word in columns["label"].tolist()]
        codes = {word: self._codes.get(same(word)) for word in dict.fromkeys(words)}
        refused = tuple(self._refusal(word) for word, code in codes.items() if code is None)
        labels: dict[str, int] = {}
        for name, word in zip(columns["id"].tolist(), words, strict=True):
            code = codes[word]
            if code is not None and code != UNLABELLED:
                key = known_as(unquoted(name))
                labels.pop(key, None)
                labels[key] = code
        return Labelled(labels, refused)

    def checked(self) -> dict[str, int]:
        """All labels.

        Raises:
            InputError: the file cannot be read, has no such columns, or names a label that is no
                class.
        """
        labels, refused = self.read()
        if refused:
            raise InputError(refused[0])
        return labels

    def refused(self, word: str) -> str:
        """Why a label is none of the classes; empty where it is one, or stands for none."""
        return "" if self._codes.get(same(word.strip())) is not None else self._refusal(word)

    def _columns(self) -> dict[str, Strings]:
        """The file's columns, by their names in small letters."""
        try:
            found = self.path.stat()
            self._stamp = _stamp(found)
            whole = not self.growing or time() - found.st_mtime > _RESTED
            decoder = codecs.getincrementaldecoder(encoding_of(self.path))()
            content = decoder.decode(self.path.read_bytes(), whole)  # it may end within a letter
            lines = content if whole else content[: content.rfind("\n") + 1]
            text = io.StringIO(lines or content, newline="")
            columns = columns_of(text, self.path, growing=not whole)
        except (OSError, UnicodeError, csv.Error) as error:
            raise InputError(
                f"{self.path} cannot be read ({said(error, self.path)}): labels=FILE.csv names a "
                "CSV file in UTF-8 with the columns id and label, of which the header is enough to "
                "begin with"
            ) from error
        return {name: columns[self._called(name, columns)] for name in ("id", "label")}

    def _called(self, name: str, columns: Collection[str]) -> str:
        """How the file writes a column's name: so, or else in other letters."""
        alike = [written for written in columns if written.lower() == name]
        if name in columns or len(alike) == 1:
            return name if name in columns else alike[0]
        if alike:
            raise InputError(
                f"{self.path} has the columns {' and '.join(alike)}: call the one that counts "
                f"{name}"
            )
        raise InputError(f"{self.path} has no column {name}: {closest(name, columns)}")

    def _refusal(self, word: str) -> str:
        """Why a label is none of the classes."""
        if number_of(word) is not None:
            return (
                f"{self.path} has the label {word}, and classes have names "
                f"({', '.join(self.class_names)}): write these, or say which class is meant, "
                f"data.classes={{{word}: {self.class_names[0]}}}"
            )
        return f"{self.path} has the label {word!r}: {closest(word, self.class_names)}"


def known_as(name: str) -> str:
    """How an image is known by its id: without the blanks around it, which tables, and who types
    an id, drop.
    """
    return name.strip()


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """What tells a file from what it was; also whether it has rested since, for then its last line
    is whole.
    """
    return found.st_size, found.st_mtime_ns, int(time() - found.st_mtime > _RESTED)
