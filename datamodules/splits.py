"""Which images belong together, and that nothing is in two splits."""

import posixpath
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import MISSING, Strings
from holdfast.datamodules.labels import whole
from holdfast.datamodules.settings import AUTO
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

#: Splits in the order in which a leak between two of them is told.
SPLITS = ("train", "val", "test")
#: The column in which folders of images, read as data, keep what lies between class and image.
FOLDER = "folder"

#: Columns that name patients, and where there is none of these, what lies between patient and
#: image.
_PATIENTS = ("patient", "subject", "participant", "person", "donor", "mrn", "pid")
_PARTS = ("case", "study", "exam", "accession", "specimen", "biopsy", "slide", "wsi", FOLDER)
_ENDINGS = ("", "id", "uid", "instanceuid", "name", "number", "no", "nr", "key", "code")


def groups_of(
    known: Strings,
    metadata: Mapping[str, Strings],
    chosen: str | None,
    ids: Strings,
    origin: object,
) -> Strings:
    """The group of each image; an image without one is a group of its own.

    Args:
        known: (N,) groups as the data set has them; empty, or a word of ``MISSING``, where unknown.
        metadata: (N,) further columns by name.
        chosen: the column that ``data.group`` names; ``AUTO``: the data set's own; None: there is
            none.
        ids: (N,) of the images.
        origin: where they come from, for messages.

    Raises:
        InputError: there is no such column.
    """
    if chosen is None:
        return ids
    if chosen in (AUTO, "group"):
        return _grouped(known, ids)
    if chosen not in metadata:
        raise InputError(
            f"{origin} has no column {chosen!r} (data.group): {closest(chosen, metadata)}; name "
            "its own, "
            "or leave images by themselves, data.group=null"
        )
    return _grouped(metadata[chosen], ids)


def likely_groups(metadata: Mapping[str, Strings]) -> dict[str, Strings]:
    """Columns that look as if they named patients, or else studies, slides and the like."""
    for stems in (_PATIENTS, _PARTS):
        names = {stem + ending for stem in stems for ending in _ENDINGS}
        if found := {
            name: values
            for name, values in metadata.items()
            if re.sub("[^a-z]", "", name.lower()) in names
        }:
            return found
    return {}


def hint_at(likely: Mapping[str, Strings]) -> tuple[str, ...]:
    """A note on columns that may name patients, where any of them has several images."""
    repeated = []
    for name, values in likely.items():
        found = hashes(values[_named(values)])
        if len(np.unique(found)) < len(found):
            repeated.append(name)
    return tuple(
        f"{_called(name)} look like patients: data.group={name}, if so" for name in repeated
    )


def check_leaks(
    origin: object,
    ids: Strings,
    groups: Strings,
    splits: Strings,
    target: npt.NDArray[np.bool_],
    likely: Mapping[str, Strings],
) -> None:
    """Refuse a group, or a file, in two splits; what is in none and belongs to the target is as
    good as a test.

    Args:
        origin: where the images come from, for messages.
        ids: (N,) of the images.
        groups: (N,) of the images.
        splits: (N,) train, val, test, or empty.
        target: (N,) whether the image belongs to a target's domain.
        likely: (N,) columns that may name patients, where nobody has said what does.

    Raises:
        InputError: there is such a group or file, or a split of another name.
    """
    codes = np.zeros(len(ids), dtype=np.uint8)
    for bit, name in enumerate(SPLITS):
        codes[splits == name] = 1 << bit
    strange = (codes == 0) & (splits != "")
    if strange.any():
        value = str(splits[strange][0])
        raise InputError(f"{origin} has the split {value!r}: {closest(value, SPLITS)}, or empty")
    codes[(splits == "") & target] = 1 << SPLITS.index("test")
    for kind, values in {"group": groups, "file": plain(ids)}.items():
        if found := _straddling(values, codes):
            count, _, first, places = found
            raise InputError(
                f"{origin}: {count} {kind}(s) in several splits, as {first} is in {places}: "
                "give each one split, for what a model was trained on proves nothing in a test"
            )
    for column, values in likely.items():
        named = _named(values)
        if found := _straddling(values[named], codes[named]):
            count, of, first, places = found
            raise InputError(
                f"{origin}: {_called(column)} look like patients, and {count} of {of} would be in "
                f"several splits, as {first} in {places}: keep each in one, data.group={column}, "
                "or say that this is right, data.group=null"
            )


def cut(groups: Strings, shares: Sequence[float], seed: int) -> Strings:
    """Splits of about the given shares that no group straddles; each has a group where there are
    three.

    Args:
        groups: (N,) group of each image.
        shares: of train, val and test.
        seed: the same seed and groups give the same splits.
    """
    if not len(groups):
        return groups
    names, of_row = np.unique(groups, return_inverse=True)
    keys = np.array([zlib.crc32(f"{seed}/{name}".encode()) for name in names.tolist()])
    order = np.argsort(keys, kind="stable")
    sizes = np.bincount(of_row)[order]
    before = (np.cumsum(sizes) - sizes / 2) / len(groups)  # where the middle of each group lies
    code = np.searchsorted(np.cumsum(shares[::-1])[:-1], before)  # 0 test, 1 val, 2 train
    if len(names) >= 3:
        code[0], code[-1] = 0, 2
        if not (code == 1).any():
            code[
                np.flatnonzero(code == 2)[0]
                if (code == 2).sum() > 1
                else np.flatnonzero(code == 0)[-1]
            ] = 1
    of_group = np.empty_like(code)
    of_group[order] = code
    names_of = np.array(["test", "val", "train"], dtype=np.dtypes.StringDType())
    return names_of[of_group[of_row]]


def _grouped(values: Strings, ids: Strings) -> Strings:
    """(N,) groups by what names them, numbers without the point that a gap in their column gave
    them, so that 1.0 and 1 are one patient.
    """
    dotted = np.strings.endswith(values, ".0")
    if dotted.any():
        values = values.copy()
        values[dotted] = [whole(str(word)) for word in values[dotted].tolist()]
    return np.where(_named(values), values, ids)


def _called(column: str) -> str:
    return "the folders below its classes" if column == FOLDER else f"the values of {column!r}"


def _named(values: Strings) -> npt.NDArray[np.bool_]:
    """(N,) whether a value names anything."""
    named = values != ""
    for word in MISSING:
        named &= values != word
    return named


def _straddling(values: Strings, codes: npt.NDArray[np.uint8]) -> tuple[int, int, str, str] | None:
    """How many values, of how many, are in several splits, the first of them, and where it is; None
    where all are in one.
    """
    _, rows, of_row = np.unique(hashes(values), return_index=True, return_inverse=True)
    seen = np.zeros(len(rows), dtype=np.uint8)
    np.bitwise_or.at(seen, of_row, codes)
    straddling = np.flatnonzero(seen & (seen - 1))
    if not len(straddling):
        return None
    first = straddling[rows[straddling].argmin()]
    places = " and ".join(name for bit, name in enumerate(SPLITS) if seen[first] >> bit & 1)
    return len(straddling), int((seen > 0).sum()), str(values[rows[first]]), places


def plain(paths: Strings) -> Strings:
    """Paths by which files are told apart, however they are written: ``a/b`` for ``./a//b``."""
    odd = np.strings.find(paths, "./") >= 0
    odd |= np.strings.find(paths, "//") >= 0
    if not odd.any():
        return paths
    same = paths.copy()
    same[odd] = [posixpath.normpath(path) for path in paths[odd].tolist()]
    return same


def hashes(values: Strings) -> npt.NDArray[np.int64]:
    """(N,) of texts, in a fraction of the memory and time that sorting a million of them takes."""
    return np.fromiter(map(hash, values), dtype=np.int64, count=len(values))
