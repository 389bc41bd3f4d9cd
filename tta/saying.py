"""What the package says in plain sentences: through the logger ``holdfast``.

A library stays silent but for warnings, which is what logging does by itself. Programs show all of
it while they run. Results that somebody asked for are printed: they are no log.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

_LOG = logging.getLogger("holdfast")

#: Say what a run understood, chose and does.
say = _LOG.info
#: Say what a user should change, or not rely on.
warn = _LOG.warning


class _Console(logging.Handler):
    """Sentences as they are: on standard output, and warnings on standard error.

    The streams are looked up for each sentence, as ``print`` does it, so that whoever redirects
    them gets what is said from then on.
    """

    #: Whether all goes to standard error; see ``aside``.
    aside = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one sentence; errors of the stream, but for a reader that left, are ``print``'s."""
        warned = record.levelno >= logging.WARNING
        stream = sys.stderr if warned or self.aside else sys.stdout
        with suppress(BrokenPipeError):  # nobody reads on, which is no reason to end a run
            print(self.format(record), file=stream)


@contextmanager
def spoken() -> Iterator[None]:
    """Within the block, which is a program's, what is said is shown."""
    if _consoles():  # a program within another
        yield
        return
    console, before = _Console(), _LOG.level
    _LOG.addHandler(console)
    _LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOG.setLevel(before)
        _LOG.removeHandler(console)


def heed(trainer: Mapping[str, Any]) -> None:
    """Show nothing but warnings from here on where the Trainer is to show no progress.

    Args:
        trainer: options of Lightning's Trainer, among them ``enable_progress_bar``.
    """
    if trainer.get("enable_progress_bar", True):
        return
    for console in _consoles():
        console.setLevel(logging.WARNING)


def aside() -> None:
    """Say all on standard error from here on: what the program prints is its result alone."""
    for console in _consoles():
        console.aside = True


def hushed() -> bool:
    """Whether a program shows nothing but warnings, and so no progress."""
    return any(console.level >= logging.WARNING for console in _consoles())


def _consoles() -> list[_Console]:
    return [handler for handler in _LOG.handlers if isinstance(handler, _Console)]
