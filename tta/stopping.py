"""``resume=DIR``, the one option that stands alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.tta.errors import InputError


def stopped_folder(words: Sequence[str]) -> str | None:
    """The folder of a run that is to be gone on with, from words that say nothing else; None where
    they say something else.

    >>> stopped_folder(["resume=runs/adapt/a"]), stopped_folder(["source=runs/train/a"])
    ('runs/adapt/a', None)
    """
    if len(words) != 1:
        return None
    name, _, folder = words[0].partition("=")
    return folder or None if name == "resume" else None


def check_resume(values: Mapping[str, Any]) -> None:
    """Refuse ``resume`` among other options, which the run's own configuration has.

    Raises:
        InputError: it is there.
    """
    if values.get("resume") is None:
        return
    others = ", ".join(sorted(values.keys() - {"resume"})) or "what is given besides"
    raise InputError(
        f"resume=DIR stands alone, for the run's own config.yaml says the rest: leave out {others}"
    )
