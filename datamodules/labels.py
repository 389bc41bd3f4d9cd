"""Which classes a column of labels names: words, numbers, and what stands for no label."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import MISSING, UNLABELLED, Strings
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class LabelColumn(NamedTuple):
    """What a column of labels comes to.

    Attributes:
        names: of the classes, in order.
        codes: (N,) the class of each image, ``UNLABELLED`` where there is none.
        missing: words among the labels that stand for none, besides blank ones.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    missing: tuple[str, ...]


def read_labels(
    values: Strings,
    origin: object,
    class_names: Sequence[str] | None = None,
    missing: Sequence[str] | None = None,
) -> LabelColumn:
    """Name the classes of a column of labels, and number the images by them.

    Numbers are names like any other, in the order of their values: 1 to 12 are twelve classes, and
    1041 and 8720 are two.

    Args:
        values: (N,) labels as they are written.
        origin: where they come from, for messages.
        class_names: of the classes, in order, where they are known; whole numbers then count them
            from 0.
        missing: words that stand for no label, besides those of ``MISSING``; [] takes all for
            classes.

    Raises:
        InputError: a label is none of the classes, or two differ in nothing that tells classes
            apart.
    """
    written, of_row = np.unique(values, return_inverse=True)
    gone = _gone(class_names, missing)
    plain = [str(word).strip() for word in written.tolist()]
    known = [word for word in dict.fromkeys(plain) if word and same(word) not in gone]
    if numbers := all(number_of(word) is not None for word in known):
        plain = [word if same(word) in gone else whole(word) for word in plain]
        known = list(dict.fromkeys(map(whole, known)))
    check_alike(known, origin, "labels")
    if class_names is None:
        names = tuple(sorted(known, key=number_of if numbers else None))  # type: ignore[arg-type]
        codes = {name: code for code, name in enumerate(names)}
    else:
        names = tuple(class_names)
        codes = {word: _code(word, names, numbers, origin) for word in known}
    table = np.array([codes.get(word, UNLABELLED) for word in plain], dtype=np.int64)
    left = tuple(word for word in written.tolist() if word.strip() and same(word.strip()) in gone)
    return LabelColumn(names, table[of_row] if len(table) else of_row.astype(np.int64), left)


def as_read(
    values: Strings, class_names: Sequence[str] | None = None, missing: Sequence[str] | None = None
) -> Strings:
    """Labels, of which those that ``read_labels`` takes for one are written alike.

    Args:
        values: (N,) labels as they are written.
        class_names: see ``read_labels``.
        missing: see ``read_labels``.

    Returns:
        (N,) labels; ``unlabelled`` where a word stands for none.
    """
    gone = _gone(class_names, missing)
    written, of_row = np.unique(np.strings.strip(values), return_inverse=True)
    first: dict[Any, str] = {}
    words = [
        "unlabelled" if not word or same(word) in gone else first.setdefault(same(word), word)
        for word in written.tolist()
    ]
    return np.array(words, dtype=np.dtypes.StringDType())[of_row]


def _gone(class_names: Sequence[str] | None, missing: Sequence[str] | None) -> set[Any]:
    """What stands for no label, as ``same`` has it."""
    words = (*MISSING, *(missing or ())) if missing is None or missing else ()
    return {same(word) for word in words} - {same(name) for name in class_names or ()}


def missing_noted(values: Strings, words: Sequence[str]) -> tuple[str, ...]:
    """A note on how many labels are words that stand for none; no note where there are none."""
    counts = {word: int((values == word).sum()) for word in words}
    shown = ", ".join(f"{count} x {word.strip()}" for word, count in counts.items() if count)
    return (f"labels taken for missing: {shown} (data.missing)",) if shown else ()


def number_of(name: str) -> Decimal | None:
    """The number that a name is, exact at any length; None where it is none."""
    return Decimal(name) if _NUMBER.fullmatch(name) else None


def same(name: str) -> Any:
    """What two names have in common that are one: 1, 01 and 1.0 are one number."""
    number = number_of(name)
    return name if number is None else number


def whole(word: str) -> str:
    """A number as it was before a gap in its column made it a float: 1.0 is 1."""
    number, _, rest = word.partition(".")
    return number if rest and not rest.strip("0") and number_of(word) is not None else word


def check_alike(names: Iterable[str], origin: object, called: str) -> None:
    """Refuse names that a reader takes for one.

    Args:
        names: of classes or findings.
        origin: where they come from, for messages.
        called: what they are, in the plural.

    Raises:
        InputError: two differ in case, in letters that are not seen, or in how a number or an
            accent is written.
    """
    seen: dict[Any, str] = {}
    for name in names:
        number = number_of(name)
        first = seen.setdefault(seen_as(name) if number is None else number, name)
        if first != name:
            how = "look alike"
            if number is not None:
                how = "are the same number"
            elif first.lower() == name.lower():
                how = "differ in case only"
            raise InputError(
                f"{origin} has the {called} {first!r} and {name!r}, which {how}: write them alike"
            )


def seen_as(name: str) -> Any:
    """What is seen of a name: its number, or its letters without case, width, blanks and marks that
    no screen shows.
    """
    plain = unicodedata.normalize("NFKC", name).casefold()
    shown = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    word = " ".join(shown.split())
    number = number_of(word)
    return word if number is None else number


def _code(word: str, names: tuple[str, ...], numbers: bool, origin: object) -> int:
    """The class that a label is: by its name, or by its number."""
    if word in names:
        return names.index(word)
    if not numbers or not word.isdecimal():
        raise InputError(f"{origin} has the label {word!r}: {closest(word, names)}")
    if int(word) >= len(names):
        raise InputError(
            f"{origin}: label {word} is out of range: there are {len(names)} classes, "
            f"numbered from 0 ({', '.join(names)})"
        )
    return int(word)
