"""What all data sets share: columns of text, and what stands for a label that is not known."""

from typing import Any

import numpy.typing as npt

#: A column of text: fixed-width, or numpy's StringDType, which holds a million file names in a
#: tenth of the memory.
Strings = npt.NDArray[Any]

#: Labels of images that have none, and of pixels that count for nothing.
UNLABELLED = -1
