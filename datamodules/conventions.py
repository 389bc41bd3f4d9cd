"""What all data sets share: columns of text, and what stands for a value that is not known."""

from typing import Any

import numpy.typing as npt

#: A column of text: fixed-width, or numpy's StringDType, which holds a million file names in a
#: tenth of the memory.
Strings = npt.NDArray[Any]

#: Labels of images that have none, and of pixels that count for nothing.
UNLABELLED = -1

#: What pandas, R and spreadsheets write where a value is missing, and -1, which many data sets do.
#: "none" in small letters is a grade (none, mild, severe), and no such word.
MISSING = (
    *("-1", "-1.0", "nan", "NaN", "-nan", "-NaN", "NA", "<NA>", "#NA", "#N/A"),
    *("N/A", "n/a", "null", "NULL", "None", "NaT"),
)
