"""The arrays of an .npz file, read without pickle, and never more than its header and the memory
allow.
"""

import math
import zipfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from holdfast.datamodules.formats.decoded import Unreadable, native
from holdfast.datamodules.formats.memory import refuse_beyond_memory
from holdfast.tta.errors import InputError, said

Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(path: Path) -> Arrays:
    """All arrays of an .npz file, without pickle.

    Raises:
        InputError: no such file, or it holds something else, or more than it says or than there is
            memory.
    """
    path = path.expanduser()
    if not path.is_file():
        raise InputError(f"the data file {path} does not exist: check data.path")
    return _read_arrays(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_arrays(path: Path, modified: int) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            refuse_beyond_memory(sum(member.file_size for member in members))
            return {
                member.filename.removesuffix(".npy"): _array(archive, member) for member in members
            }
    except Unreadable as error:
        raise InputError(f"{path} {error}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError, RuntimeError) as error:
        raise InputError(
            f"{path} is not a readable .npz file of plain arrays ({said(error, path)}): write it "
            "by "
            "np.savez(FILE, images=..., labels=...)"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """An array, once its header agrees with its size: numpy would take the memory first."""
    if not member.filename.endswith(".npy"):
        raise Unreadable(f"holds {member.filename}, which is no array")
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        if dtype.hasobject:
            raise Unreadable(
                f"holds Python objects ({name}), which could be any program: save numbers and "
                "texts, "
                "np.array(..., dtype=str)"
            )
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    if expected != member.file_size:
        raise Unreadable(
            f"is damaged: {name} has {member.file_size} bytes, and its header says {expected}"
        )
    with archive.open(member) as file:
        array: npt.NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return _plain(array)


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers in the machine's byte order, and texts as such, without blanks around them, which
    would make two patients of one.
    """
    if array.dtype.kind == "S":  # of bytes, as other programs write texts, and others digests
        with suppress(UnicodeDecodeError):
            array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        return np.strings.strip(array)
    return native(array)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of numpy's format {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
