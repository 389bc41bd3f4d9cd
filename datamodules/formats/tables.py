"""DICOM's lookup tables, of the modality and of the display."""

from typing import NamedTuple

import numpy as np
from pydicom import Dataset

from holdfast.datamodules.formats.decoded import Array, Unreadable

_DEPTHS = range(1, 17)  # bits of an entry


class LookupTable(NamedTuple):
    """A lookup table.

    Attributes:
        first: the number that its first entry stands for; what is less becomes the first entry too.
        entries: (N,) uint8 or uint16; what lies beyond becomes the last.
        depth: bits of an entry.
    """

    first: int
    entries: Array
    depth: int

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest value that an entry can have."""
        return 0.0, 2.0**self.depth - 1

    def apply(self, values: Array) -> Array:
        """The entries of values, which are whole numbers; fractions are cut off.

        As ``pydicom.pixels.apply_modality_lut`` and ``apply_voi``, which however count places in
        the type of pixels or entries: from the 257th on they begin anew where that has 8 bits.
        """
        places = values.astype(np.int64) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1)]


def table_of(dataset: Dataset, name: str) -> LookupTable | None:
    """The first table of a sequence, None where there is none.

    Args:
        dataset: the file.
        name: of the sequence.

    Raises:
        Unreadable: it contradicts itself.
    """
    items = dataset.get(name)
    if not items or not items[0].get("LUTDescriptor") or not items[0].get("LUTData"):
        return None
    try:
        count, first, depth = (int(value) for value in items[0].LUTDescriptor)
    except (ValueError, TypeError) as error:
        raise Unreadable(f"has a {name} whose LUTDescriptor is not three numbers") from error
    count = count or 2**16  # which has no place in the 16 bits of a descriptor
    entries = _entries(dataset, items[0].LUTData, count if depth <= 8 else 0)
    if len(entries) < count or depth not in _DEPTHS:
        raise Unreadable(
            f"has a {name} of {len(entries)} entries of {depth} bits where it says {count}"
        )
    return LookupTable(first, entries[:count].astype(np.uint8 if depth <= 8 else np.uint16), depth)


def _entries(dataset: Dataset, data: bytes | list[int], packed: int) -> Array:
    """Entries of 16 bits; of 8, two a word, where there are too few for ``packed`` of 16."""
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.uint16))
    if len(data) < 2 * packed:
        return np.frombuffer(data, np.uint8)
    little = dataset.original_encoding[1] is not False
    return np.frombuffer(data, "<u2" if little else ">u2")
