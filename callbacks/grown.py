"""What a stream leaves behind, an entry an image or batch, in a few bytes each: lists of objects
take a hundred times that.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from holdfast.tta.growing import GrowingFile, size_in


class Grown:
    """An array that grows at its end.

    Args:
        dtype: of its values.
        expected: entries for which there is room at once; memory that is not written to is not
            taken.
    """

    def __init__(self, dtype: npt.DTypeLike, expected: int = 0) -> None:
        self._dtype, self._expected = np.dtype(dtype), max(expected, 64)
        self._held: npt.NDArray[Any] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, values: npt.NDArray[Any]) -> None:
        """Append values (N, ...), always of the same shape but for N."""
        if self._held is None:
            self._held = np.empty((self._expected, *values.shape[1:]), self._dtype)
        stop = self._count + len(values)
        if stop > len(self._held):
            held = np.empty((max(stop, 2 * len(self._held)), *values.shape[1:]), self._dtype)
            held[: self._count] = self._held[: self._count]
            self._held = held
        self._held[self._count : stop] = values
        self._count = stop

    @property
    def values(self) -> npt.NDArray[Any]:
        """All of them, (N, ...)."""
        if self._held is None:
            return np.empty(0, self._dtype)
        return self._held[: self._count]


class GrownFile:
    """The same on disk, for streams without end, and to go on with after a stop.

    Args:
        path: the file.
        dtype: of its values; of those that are no single numbers a structured one.
        state: from ``state_dict``, to go on with the file; None: it is written anew.
    """

    def __init__(
        self, path: Path, dtype: npt.DTypeLike, state: Mapping[str, Any] | None = None
    ) -> None:
        self._dtype = np.dtype(dtype)
        self.file = GrowingFile(path, size_in(state))

    def __len__(self) -> int:
        return self.file.size // self._dtype.itemsize

    def add(self, values: npt.NDArray[Any]) -> None:
        """Append values (N,)."""
        self.file.append(np.ascontiguousarray(values, self._dtype).tobytes())

    @property
    def values(self) -> npt.NDArray[Any]:
        """All of them, (N,), read from the file."""
        return np.fromfile(self.file.path, self._dtype, count=len(self))


class Names:
    """Names that repeat, such as domains, each kept once."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._names: list[Any] = []
        self._codes = array("i")

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, names: Iterable[Any]) -> None:
        """Append names, or any values that can be keys."""
        self._codes.extend(self.code(name) for name in names)

    def code(self, name: Any) -> int:
        """The number of a name, which is not appended."""
        code = self._known.setdefault(name, len(self._names))
        if code == len(self._names):
            self._names.append(name)
        return code

    @property
    def known(self) -> list[Any]:
        """Each name once, in the order of their numbers."""
        return list(self._names)

    def __getitem__(self, index: int) -> Any:
        return self._names[self._codes[index]]

    @property
    def values(self) -> list[Any]:
        """All of them."""
        return [self._names[code] for code in self._codes]


class Rows(Sequence[Mapping[str, Any]]):
    """Rows of a trace, as dictionaries to whoever reads them, and as columns in memory.

    Args:
        kept: columns to keep; None: all.
    """

    def __init__(self, kept: Iterable[str] | None = None) -> None:
        self._kept = None if kept is None else tuple(kept)
        # By name, in the order of the rows; None until a first value tells what a column holds.
        self._columns: dict[str, array[float] | Names | None] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        for name in row if self._kept is None else self._kept:
            if name != "batch" and name in row:
                self._add(name, row[name])
        self._count += 1

    def _add(self, name: str, value: Any) -> None:
        column = self._columns.setdefault(name, None)
        if column is None:
            if value is None:
                return
            column = array("d") if isinstance(value, float) else Names()
            self._columns[name] = column
        missing = self._count - len(column)
        if isinstance(column, Names):
            column.add([*[None] * missing, value])
        else:
            column.extend([np.nan] * missing)
            column.append(np.nan if value is None else value)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Mapping[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(index, slice):
            return [self._row(place) for place in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._row(index % self._count)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self._row(place) for place in range(self._count))

    def _row(self, place: int) -> dict[str, Any]:
        row: dict[str, Any] = {"batch": place}
        for name, column in self._columns.items():
            value = None if column is None or place >= len(column) else column[place]
            row[name] = None if isinstance(value, float) and value != value else value
        return row
