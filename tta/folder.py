"""The folder of a run: one process writes there, results of two runs never mix, and a full disk is
told in a sentence.
"""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.tta.config import save
from holdfast.tta.errors import InputError, WriteError
from holdfast.tta.processes import is_first
from holdfast.tta.saying import say

#: Held by the process that writes to a folder, and removed when it is done.
_LOCK = ".lock"
#: Bytes of a name: file systems take 255, and a number may follow.
_LONGEST = 200
#: What a disk says that takes no more: full, over the quota, a file's limit, read-only, broken or
#: gone.
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the size limit that is set here",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk does not answer",
    errno.ESTALE: "the network disk has gone",
}


@dataclass(frozen=True)
class Program:
    """What a program leaves.

    Args:
        name: the command that starts it.
        root: folder of runs that name none.
        results: files, as patterns, that make a folder one that holds results.
        others: further files that are its own, and are removed along with results.
        unfinished: file that a run leaves until it is done, where it can be gone on with.
        within: words by which this command calls other programs, which have folders of their own.
    """

    name: str
    root: str
    results: tuple[str, ...]
    others: tuple[str, ...]
    unfinished: str | None = None
    within: tuple[str, ...] = ()

    def left(self, command: str) -> bool:
        """Whether a folder with this command in its ``config.yaml`` is one of its runs."""
        others = tuple(f"{self.name} {word} " for word in self.within)
        return command.startswith(f"{self.name} ") and not command.startswith(others)


@contextmanager
def claimed(program: Program, config: Any, default: str) -> Iterator[Path]:
    """The folder of a run, for as long as it writes there, with ``config.yaml`` in it.

    A folder that was named must not hold results, unless ``config.overwrite`` says that they may
    go: then the program's own files are removed, and nobody else's. Where neither folder nor run
    was named, it is the first of NAME, NAME-2, NAME-3 … that is free.

    Of several processes the first one holds the folder; the others write nothing.

    Args:
        program: whose folder.
        config: with ``output``, ``name`` and ``overwrite``; what is saved leaves out where and over
            what it was written, so that the saved file is an argument for another run.
        default: the run's name where it has none.

    Raises:
        InputError: the folder holds results, is another program's, is in use, or cannot be written.
        WriteError: the disk is full.
    """
    default = safe_name(default)
    if not is_first():
        yield _named(program, config) or Path(program.root) / default
        return
    folder, lock = _claim(program, config, default)
    try:
        part = folder / "config.yaml.part"
        with writing(part):
            command = f"{program.name} {folder}/config.yaml"
            save(replace(config, output=None, overwrite=False), part, command)
            part.replace(folder / "config.yaml")  # never half of it
        yield folder
    finally:
        _release(folder, lock)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within the block, no other process writes to the folder, which may hold results to go on
    from.

    Raises:
        InputError: another one does.
        WriteError: the disk is full.
    """
    lock = _opened(folder)
    try:
        yield
    finally:
        _release(folder, lock)


def result_in(folder: Path, program: Program) -> bool:
    """Whether results of the program are in a folder."""
    return any(path for pattern in program.results for path in folder.glob(pattern))


def sweep(folder: Path, program: Program) -> None:
    """Remove halves of files that a process left which was killed while it wrote them."""
    for pattern in program.others:
        for path in folder.glob(pattern) if pattern.endswith(".part") else ():
            path.unlink(missing_ok=True)


def check_folder(program: Program, config: Any) -> None:
    """Refuse early, before anything is read, what ``claimed`` would refuse in the end.

    Raises:
        InputError: a folder that was named holds results, or the name is none.
    """
    folder = _named(program, config)
    if folder is None or not is_first():
        return
    _refuse_other(folder, program)
    if not config.overwrite:
        _refuse_results(folder, program)


def sheet_folder(config: Any, default: str) -> Path:
    """Where ``check=only`` leaves its contact sheet, which replaces an earlier one.

    Args:
        config: with ``output`` and ``name``.
        default: the run's name where it has none.

    Raises:
        InputError: the name is no name of a folder.
    """
    name = safe_name(default) if config.name is None else plain_name(config.name)
    return Path(config.output or f"runs/check/{name}").expanduser()


def plain_name(name: str) -> str:
    """The name of a run, which is that of a folder as well.

    Raises:
        InputError: it would lead elsewhere, or is no file's name.
    """
    odd = not name.strip() or name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name)
    if odd or len(os.fsencode(name)) > _LONGEST:
        raise InputError(
            f"name={name!r} is no name of a folder: leave out / and \\, of at most {_LONGEST} "
            "letters, or name a folder "
            "anywhere with output=DIR"
        )
    return name


def safe_name(text: str, longest: int = _LONGEST) -> str:
    """Text as part of a folder's name: letters, digits and ``. + -`` alone, and no more than some
    bytes of them.
    """
    plain = re.sub(r"[^\w.+-]", "-", text).lstrip(".") or "-"
    return os.fsencode(plain)[:longest].decode(errors="ignore")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while a file is written, as a ``WriteError``; half a file is removed."""
    try:
        yield
    except OSError as error:
        if error.errno not in {*_DISK, errno.EACCES, errno.EPERM} and path.parent.exists():
            raise
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise write_error(error, path) from error


def write_error(error: OSError, path: Path | None = None, told: str = "") -> WriteError:
    """The sentence for a file that cannot be written.

    Args:
        error: what the system says.
        path: the file; None where only the system knows.
        told: what else there is to say, a half-sentence.
    """
    place = path or Path(os.fsdecode(error.filename or "a file of the results"))
    if path is not None and not path.parent.exists():
        return WriteError(
            f"{path.parent} was removed while the run wrote to it, and its results with it: run "
            "again"
        )
    return WriteError(
        f"{place} cannot be written, {reason_of(error)}{told}: make room, or choose another disk, "
        "output=DIR"
    )


def reason_of(error: OSError) -> str:
    """Why a disk takes nothing, in a few words."""
    return _DISK.get(error.errno or 0, str(error.strerror))


def no_folder(error: OSError, folder: Path) -> InputError | WriteError:
    """The sentence for a folder that cannot be made, or not be written to."""
    if is_disk_error(error):
        return write_error(error, folder)
    return InputError(
        f"the output folder {folder} cannot be written ({error.strerror}): choose another, "
        "output=DIR"
    )


def is_disk_error(error: OSError) -> bool:
    """Whether a disk took no more, rather than the user naming what is not there."""
    return error.errno in _DISK


def carry_out(steps: Sequence[tuple[Path, Callable[[], object]]], kept: Sequence[str] = ()) -> None:
    """Write files, the most important first; one that cannot be written keeps none of the others
    from it.

    Args:
        steps: each file, and what writes it.
        kept: names of files that are whole already.

    Raises:
        WriteError: of the first file that could not be written; it says which are whole.
    """
    whole, failed = list(kept), {}
    for path, write in steps:
        try:
            with writing(path):
                write()
            whole += [path.name] if path.exists() else []  # a step need not leave a file
        except WriteError as error:
            failed[path] = error.__cause__
    for path, cause in failed.items():
        missing = ", ".join(path.name for path in failed)
        told = f"; missing are {missing}, and whole {', '.join(whole) or 'none'}"
        assert isinstance(cause, OSError)
        raise write_error(cause, path, told)


def _claim(program: Program, config: Any, default: str) -> tuple[Path, int | None]:
    named = _named(program, config)
    if named is not None:
        return named, _taken(named, program, config.overwrite)
    number, name = 1, default
    while True:
        folder = Path(program.root) / name
        try:
            return folder, _taken(folder, program, config.overwrite and number == 1)
        except _Occupied as occupied:
            number += 1
            name = f"{default}-{number}"
            say(f"{occupied.reason}, so this run goes to {name}")


def _named(program: Program, config: Any) -> Path | None:
    """The folder that was asked for; None where it is left to the run."""
    name = None if config.name is None else plain_name(config.name)
    if config.output is not None:
        return Path(config.output).expanduser()
    return None if name is None else Path(program.root) / name


class _Occupied(InputError):
    """A folder that another run has."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason


def _opened(folder: Path) -> int | None:
    """Lock a folder, which is created where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _lock(folder)
    except OSError as error:
        raise no_folder(error, folder) from error


def _taken(folder: Path, program: Program, overwrite: bool) -> int | None:
    """Lock a folder, and see that no results are in it."""
    lock = _opened(folder)
    try:
        _refuse_other(folder, program)
        if overwrite:
            clear(folder, program)
        else:
            _refuse_results(folder, program)
    except BaseException:
        _release(folder, lock)
        raise
    return lock


def _refuse_other(folder: Path, program: Program) -> None:
    """Refuse a folder whose ``config.yaml`` another program left: it would be replaced, and with it
    what says how to have those results again.
    """
    try:
        with (folder / "config.yaml").open(encoding="utf-8", errors="replace") as file:
            command = file.readline().removeprefix("# ").strip()
    except OSError:
        return
    if command.startswith("holdfast ") and not program.left(command):
        raise _Occupied(
            f"{folder} is the folder of another program ({command})",
            "choose another folder, output=DIR or name=NAME",
        )


def _refuse_results(folder: Path, program: Program) -> None:
    results = [path.name for pattern in program.results for path in folder.glob(pattern)]
    if results:
        goes_on = program.unfinished is not None and (folder / program.unfinished).exists()
        raise _Occupied(
            f"{folder} holds the results of an earlier run ({', '.join(sorted(results))})",
            "choose another folder, output=DIR or name=NAME, or replace them, overwrite=true"
            + (f", or go on with that run, resume={folder}" if goes_on else ""),
        )


def clear(folder: Path, program: Program, spare: Sequence[str] = ()) -> None:
    """Remove what an earlier run of the program left, and nothing else.

    Args:
        folder: of the run.
        program: whose files.
        spare: names of files that stay.
    """
    for pattern in (*program.results, *program.others):
        for path in folder.glob(pattern):
            if path.name not in spare and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def _lock(folder: Path) -> int | None:
    """The folder's lock, as an open file; None where the file system knows no locks.

    A process that ends, however it does, lets go of its lock, so a file that is left behind blocks
    nobody.
    """
    path = folder / _LOCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 100).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise _Occupied(
                f"{folder} is in use by {owner}",
                "wait until it is done, or choose another folder, output=DIR",
            ) from None
        except OSError:  # no locks on this file system, or its lock server is down
            os.close(file)
            return None
        # The one before may have removed the file between our opening and locking it.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            break
        os.close(file)
    _HELD.add(file)
    with suppress(OSError):  # a full disk keeps the name, not the lock
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
    return file


def _release(folder: Path, lock: int | None) -> None:
    if lock is None:
        return
    with suppress(OSError):
        (folder / _LOCK).unlink()
    fcntl.flock(lock, fcntl.LOCK_UN)
    _HELD.discard(lock)
    os.close(lock)


#: Locks of this process. Those that it forks (workers of a loader) must not hold them: they may
#: live for seconds when it is killed.
_HELD: set[int] = set()


def _let_go() -> None:
    for lock in _HELD:
        os.close(lock)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)
