"""Findings as tables have them: a column each, or a list in one column."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import MISSING, Strings
from holdfast.datamodules.labels import check_alike, seen_as
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

#: Words that stand for no finding at all; that is no finding of its own.
NOTHING = ("no finding", "no findings", "nofinding", "none", "normal", "no_finding")
#: What a column says of a finding.
_PRESENT = ("1", "1.0", "true", "yes", "present", "positive", "y", "t")
_ABSENT = ("0", "0.0", "false", "no", "absent", "negative", "n", "f")
_UNCERTAIN = ("-1", "-1.0", "uncertain")
#: What separates the findings of a list.
_BETWEEN = re.compile(r"\s*[|;]\s*")

_POLICIES = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}


@dataclass(frozen=True)
class Findings:
    """Which findings images have.

    Args:
        names: of the findings, L.
        values: (N, L) 1 present, 0 absent, NaN unknown.
        notes: what was made of odd values, a few words each.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()


def from_columns(
    columns: Sequence[Strings],
    names: Sequence[str],
    origin: object,
    uncertain: str = "ignore",
    unmentioned: str = "ignore",
) -> Findings:
    """A column for each finding: 1 or 0, yes or no, -1 for uncertain, empty for not mentioned.

    Args:
        columns: (N,) each, as written.
        names: of the findings.
        origin: where they come from, for messages.
        uncertain: what -1 is: ignore (unknown), zeros (absent) or ones (present).
        unmentioned: what an empty value is: ignore or zeros.

    Raises:
        InputError: a value is none of these.
    """
    empty, doubtful = _POLICIES[unmentioned], _POLICIES[uncertain]
    meaning = {word.lower(): empty for word in ("", *MISSING)}
    meaning |= dict.fromkeys(_PRESENT, 1.0) | dict.fromkeys(_ABSENT, 0.0)
    meaning |= dict.fromkeys(_UNCERTAIN, doubtful)
    result = np.empty((len(columns[0]), len(names)), np.float32)
    doubts = 0
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        written, of_row = np.unique(column, return_inverse=True)
        words = [str(word).strip().lower() for word in written.tolist()]
        odd = next((word for word in words if word not in meaning), None)
        if odd is not None:
            raise InputError(
                f"{origin}: the column {name} holds {odd!r}: a finding is 1 (present), 0 (absent), "
                "-1 (uncertain) or empty"
            )
        result[:, place] = np.array([meaning[word] for word in words])[of_row]
        doubts += sum(int((column == word).sum()) for word in written if str(word) in _UNCERTAIN)
    notes = (f"{doubts} uncertain findings: data.uncertain={uncertain}",) if doubts else ()
    return Findings(tuple(names), result, notes)


def from_lists(
    column: Strings, origin: object, names: Sequence[str] | None = None, rare: bool = False
) -> Findings:
    """A list of findings in one column, ``Effusion|Mass``; an empty one says nothing, and
    ``No Finding`` that there is none.

    Args:
        column: (N,) lists.
        origin: where they come from, for messages.
        names: of the findings that count; None: all that occur.
        rare: one that never occurs is no mistake.

    Raises:
        InputError: a name never occurs.
    """
    written, of_row = np.unique(column, return_inverse=True)
    lists = [_listed(str(word)) for word in written.tolist()]
    occurring = sorted({name for found in lists for name in found or ()})
    for name in names or ():
        if name not in occurring and not rare:
            raise InputError(
                f"data.findings names {name!r}, which {origin} has nowhere: "
                f"{closest(name, occurring)}"
            )
    _check_written(occurring, names, origin)
    chosen = tuple(names or occurring)
    if not chosen:
        raise InputError(f"{origin} names no finding: write them as Effusion|Mass")
    table = np.array(
        [[np.nan if found is None else float(name in found) for name in chosen] for found in lists],
        dtype=np.float32,
    ).reshape(len(lists), len(chosen))
    return Findings(chosen, table[of_row])


def _check_written(occurring: Sequence[str], names: Sequence[str] | None, origin: object) -> None:
    """Refuse findings that are one but for how they are written, and lists with commas."""
    known = set(occurring)
    for name in occurring:
        parts = [part.strip() for part in name.split(",")]
        if len(parts) > 1 and known.issuperset(parts):
            raise InputError(
                f"{origin} has the finding {name!r}, and its parts as well: separate the findings "
                "of an image by | or ;"
            )
    chosen = {seen_as(name) for name in names or occurring}
    meant = [name for name in occurring if seen_as(name) in chosen]
    check_alike([*(names or ()), *meant], origin, "findings")


def _listed(word: str) -> list[str] | None:
    """The findings of a list; None: it says nothing."""
    word = word.strip()
    if not word or word in MISSING:
        return None
    parts = [part for part in _BETWEEN.split(word.strip("|; ")) if part]
    return [part for part in parts if part.lower() not in NOTHING]


def without_nothing(names: Iterable[str]) -> list[str]:
    """Names of findings, without the words for none."""
    return [name for name in names if name.lower() not in NOTHING]
