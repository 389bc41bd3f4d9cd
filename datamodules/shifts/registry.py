"""The corruptions by name: the one place where a shift is added."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from datamodules.shifts.noise import gaussian
from datamodules.shifts.optics import defocus
from datamodules.shifts.tone import brighten, flatten

#: From a scaled image (channels, *spatial), a strength and a random generator to the corrupted image, not yet clamped to 0..1.
Function = Callable[[Tensor, float, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """What a shift does, and how strongly at each severity.

    Args:
        function: the corruption.
        levels: its strengths at severities 1..5, in the unit that the function states.
    """

    function: Function
    levels: tuple[float, float, float, float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(gaussian, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "contrast": Corruption(flatten, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "blur": Corruption(defocus, (1.2, 2.0, 3.0, 4.5, 6.5)),
    "brightness": Corruption(brighten, (0.05, 0.1, 0.2, 0.35, 0.5)),
}
