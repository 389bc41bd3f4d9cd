"""Files of a data set by their names, which may choose a volume of a time series: cine.nii.gz@7."""

import re

from holdfast.datamodules.decoding import Decoded, decode
from holdfast.datamodules.paths import inside

_FRAME = re.compile(r"(.+\.nii(?:\.gz)?)@(\d+)", re.IGNORECASE)


def named_file(name: str) -> str:
    """The file that a name is of."""
    chosen = _FRAME.fullmatch(name)
    return chosen[1] if chosen else name


def decode_named(root: str, name: str) -> Decoded:
    """A file below a folder, or the chosen volume of one.

    Args:
        root: the folder, without links in it.
        name: of the file; behind an @ the number of a volume, from 0.

    Raises:
        Unreadable: it does not exist, is damaged, or has no such volume.
        InputError: it lies outside the folder.
    """
    chosen = _FRAME.fullmatch(name)
    frame = int(chosen[2]) if chosen else None
    return decode(inside(root, named_file(name)), frame)
