"""Columns of numbers and ages, cut into bands."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.datamodules.conventions import MISSING
from holdfast.tta.errors import InputError

#: How many of DICOM's units of age make a year.
_IN_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


def banded(values: npt.NDArray[Any], name: str, width: str) -> npt.NDArray[Any]:
    """(N,) the band of each value, ``20-39``; empty where it is not known.

    Args:
        values: (N,) numbers, or ages as DICOM writes them.
        name: of the column, for messages.
        width: of a band.

    Raises:
        InputError: the width is no whole number, or a value is none.
    """
    if not width.isdecimal() or int(width) < 1:
        raise InputError(
            f"{name}/{width} is no column in bands: write a whole number behind the slash, "
            f"{name}/20"
        )
    step, bands = int(width), []
    for value in values.tolist():
        try:
            unknown = str(value) in ("", *MISSING)
            start = None if unknown else int(_years(str(value)) // step * step)
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"the column {name!r} holds {value!r}, which is no number to cut into bands of "
                f"{width}: write one, leave the cell empty, or take values as they are, "
                f"data.subgroups=[{name}]"
            ) from error
        bands.append("" if start is None else f"{start}-{start + step - 1}")
    return np.array(bands)


def _years(value: str) -> float:
    """A number, or an age as DICOM writes it, in years: 058Y, 006M, 012W, 003D."""
    age = re.fullmatch(r"(\d{1,3})([DWMY])", value.strip())
    return int(age[1]) / _IN_A_YEAR[age[2]] if age else float(value)
