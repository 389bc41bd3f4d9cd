"""Corruptions of scaled images, deterministic by seed and image id.

Each is a function of an image, a strength and a random generator; ``registry.py`` lists them with
their five strengths.
"""

from holdfast.datamodules.shifts.registry import (
    CORRUPTIONS,
    FAMILIES,
    Corruption,
    members,
    register_shift,
)
from holdfast.datamodules.shifts.shift import (
    SHIFTS,
    ComposeConfig,
    NoShiftConfig,
    Shift,
    ShiftConfig,
    create_shift,
    expanded,
)

__all__ = [
    "CORRUPTIONS",
    "FAMILIES",
    "SHIFTS",
    "ComposeConfig",
    "Corruption",
    "NoShiftConfig",
    "Shift",
    "ShiftConfig",
    "create_shift",
    "expanded",
    "members",
    "register_shift",
]
