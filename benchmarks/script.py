"""How the scripts of this folder are started: their words, help and exit status."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from holdfast.tta import entry
from holdfast.tta.config import Groups
from holdfast.tta.saying import aside

T = TypeVar("T")
Main = Callable[[Sequence[str]], int]


def script(
    schema: type[T],
    work: Callable[[T], str],
    groups: Groups | None = None,
    configure: Callable[[Sequence[str]], T] | None = None,
) -> Main:
    """The ``main`` of a script, whose docstring says in two paragraphs what it does, and how it is
    called.

    Args:
        schema: dataclass of its options.
        work: takes them, and returns what is to be printed.
        groups: choices of each group.
        configure: makes the options of words, where that takes more than the words.
    """
    told, command, *_ = (sys.modules[work.__module__].__doc__ or "").split("\n\n")
    usage = f"usage: {command.strip()}\n\n{' '.join(told.split())}"
    given = groups or {}
    make = configure or partial(entry.configured, schema, given)

    def main(argv: Sequence[str]) -> int:
        """Run from command-line words; returns the exit status."""

        def run() -> None:
            aside()
            print(work(make(argv)))

        return entry.run(run, schema, given, usage, argv, configure=make)

    return main
