"""The corruptions by name: the one place where a shift is added to ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from holdfast.datamodules.shifts.colour import stain, temperature
from holdfast.datamodules.shifts.kspace import bias_field, ghosting, ringing, spikes
from holdfast.datamodules.shifts.noise import gaussian, rician, shot, speckle
from holdfast.datamodules.shifts.occlusion import dust, hair, smoke
from holdfast.datamodules.shifts.optics import defocus, motion, vignette
from holdfast.datamodules.shifts.resolution import coarsen, jpeg, pixelate
from holdfast.datamodules.shifts.tone import brighten, darken, flatten, window
from holdfast.tta.errors import InputError
from holdfast.tta.registry import Registry, instances_of

#: From a scaled image (channels, *spatial), a strength and a random generator to the corrupted
#: image, not yet clamped to 0..1.
Function = Callable[[Tensor, float, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """What a shift does, and how strongly at each severity.

    Args:
        function: the corruption.
        levels: its strengths at severities 1..5, in the unit that the function states;
            docs/reference/shifts.md shows what they cost.
        colour: needs images of three channels.
        flat: needs 2D images.
        moved: what it does to a mask (*spatial) of whole numbers, where it moves pixels: from the
            mask, the strength and a generator that draws what the image's does. None: pixels stay
            where they are, and so does the mask.
    """

    function: Function
    levels: tuple[float, float, float, float, float]
    colour: bool = False
    flat: bool = False
    moved: Function | None = None

    def fits(self, channels: int, dimensions: int) -> bool:
        """Whether it can be done to images of so many channels and spatial dimensions."""
        return (channels == 3 or not self.colour) and (dimensions == 2 or not self.flat)


_OURS: dict[str, Corruption] = {
    "noise": Corruption(gaussian, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "rician": Corruption(rician, (0.03, 0.045, 0.06, 0.08, 0.12)),
    "shot": Corruption(shot, (300, 100, 40, 15, 5)),
    "speckle": Corruption(speckle, (0.05, 0.07, 0.1, 0.2, 0.4)),
    "blur": Corruption(defocus, (1.2, 2.0, 3.0, 4.5, 6.5)),
    "motion": Corruption(motion, (3, 5, 8, 12, 18)),
    "resolution": Corruption(coarsen, (1.5, 2, 3, 4, 6)),
    "pixelate": Corruption(pixelate, (2, 2.5, 3, 4, 6)),
    "jpeg": Corruption(jpeg, (60, 30, 15, 8, 4)),
    "brightness": Corruption(brighten, (0.05, 0.1, 0.2, 0.35, 0.5)),
    "contrast": Corruption(flatten, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "gamma": Corruption(darken, (1.5, 2, 2.6, 3.5, 5)),
    "window": Corruption(window, (0.75, 0.6, 0.48, 0.36, 0.2)),
    "bias": Corruption(bias_field, (0.3, 0.45, 0.65, 0.9, 1.3)),
    "gibbs": Corruption(ringing, (0.65, 0.72, 0.78, 0.84, 0.9)),
    "spikes": Corruption(spikes, (0.04, 0.06, 0.08, 0.12, 0.2)),
    "ghosting": Corruption(ghosting, (0.2, 0.4, 0.6, 0.8, 1)),
    "stain": Corruption(stain, (1.2, 1.35, 1.55, 1.8, 2.2), colour=True),
    "temperature": Corruption(temperature, (5300, 4600, 3800, 3000, 2200), colour=True),
    "vignette": Corruption(vignette, (0.7, 1, 1.4, 2, 3), flat=True),
    "smoke": Corruption(smoke, (0.25, 0.4, 0.5, 0.6, 0.75), flat=True),
    "dust": Corruption(dust, (1, 3, 7, 14, 28), flat=True),
    "hair": Corruption(hair, (1, 2, 4, 8, 16), flat=True),
}


def _check(name: str, entry: object) -> None:
    """Refuse what is no corruption, and names that stand for something else on command lines."""
    instances_of(Corruption)(name, entry)
    if name in (*FAMILIES, "none", "compose"):
        raise InputError(f"shift={name} has a meaning already: register yours under another name")


#: Shifts by name: ours, registered ones, and entry points of the group ``holdfast.shifts``.
CORRUPTIONS: Registry[Corruption] = Registry("shift", "holdfast.shifts", _OURS, _check)
register_shift = CORRUPTIONS.register

#: Shifts that images of a modality are prone to: a family's name stands for its members wherever a
#: stream lists shifts.
FAMILIES: dict[str, tuple[str, ...]] = {
    "xray": (
        "noise",
        "shot",
        "blur",
        "resolution",
        "contrast",
        "brightness",
        "gamma",
        "window",
        "jpeg",
    ),
    "ct": ("noise", "shot", "blur", "motion", "resolution", "contrast", "window"),
    "mr": (
        "rician",
        "bias",
        "gibbs",
        "spikes",
        "ghosting",
        "motion",
        "resolution",
        "contrast",
        "gamma",
    ),
    "histology": (
        "stain",
        "temperature",
        "blur",
        "brightness",
        "contrast",
        "noise",
        "jpeg",
        "pixelate",
        "dust",
    ),
    "microscopy": (
        "shot",
        "noise",
        "blur",
        "resolution",
        "brightness",
        "contrast",
        "gamma",
        "bias",
        "vignette",
        "dust",
    ),
    "dermoscopy": (
        "hair",
        "temperature",
        "vignette",
        "blur",
        "motion",
        "brightness",
        "contrast",
        "noise",
        "jpeg",
        "pixelate",
    ),
    "fundus": (
        "vignette",
        "smoke",
        "temperature",
        "blur",
        "motion",
        "brightness",
        "contrast",
        "gamma",
        "noise",
        "dust",
        "jpeg",
    ),
    "ultrasound": (
        "speckle",
        "blur",
        "motion",
        "resolution",
        "contrast",
        "brightness",
        "gamma",
        "jpeg",
    ),
}


def members(names: str | Sequence[str]) -> list[str]:
    """Names of shifts, families written out."""
    names = [names] if isinstance(names, str) else names
    return [member for name in names for member in FAMILIES.get(name, (name,))]
