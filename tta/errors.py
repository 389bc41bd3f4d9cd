"""The exceptions that users are meant to read, and other libraries' errors in words for it."""

import os


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that names the remedy.

    The entry points print it and exit with status 2.
    """


class ProcessLost(RuntimeError):
    """A process that shared the work ended before its time; the entry points print it and exit with
    1.
    """


class WriteError(RuntimeError):
    """A result cannot be written; the message is one sentence that says what is whole.

    The entry points print it and exit with status 74, ``EX_IOERR``.
    """


#: Errors whose words stand for themselves; of others the type is told as well, for ``'shape'``
#: alone says nothing.
_PLAIN = (InputError, OSError, MemoryError, SyntaxError, UnicodeError)


def said(error: BaseException, path: str | os.PathLike[str] | None = None) -> str:
    """What an error says, whole and on one line, to stand within a sentence of ours.

    >>> said(FileNotFoundError(2, "No such file or directory", "scan.nii"))
    'No such file or directory'
    >>> said(KeyError("shape"))
    "KeyError: 'shape'"

    Args:
        error: of any library.
        path: a file that our sentence names already, and the error need not name again.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = str(error)
    if path is not None:
        for name in (f"'{path}'", f'"{path}"', str(path)):
            words = words.replace(name, "the file")
    words = " ".join(words.split()).rstrip(".")
    words = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)
    if not words:
        return type(error).__name__
    name = type(error).__name__
    if isinstance(error, _PLAIN) or name in ("ValueError", "RuntimeError", "Error", "error"):
        return words
    return f"{name}: {words}"


class Terminated(SystemExit):
    """SIGTERM came before there was a Trainer to end."""
