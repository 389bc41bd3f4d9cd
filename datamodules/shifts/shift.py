"""A shift as it is asked for: corruptions at severities, with a seed."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from holdfast.datamodules.shifts.registry import CORRUPTIONS, FAMILIES
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option


@dataclass
class NoShiftConfig:
    """Images as they are."""


@dataclass
class ShiftConfig:
    """One corruption at one severity."""

    severity: int = option(3, "1 (mild) to 5 (severe)")
    seed: int = option(0, "seed of the corruption's randomness, with the image's id")

    def __post_init__(self) -> None:
        if not 1 <= self.severity <= 5:
            raise InputError(f"shift.severity={self.severity} is outside 1..5")


@dataclass
class ComposeConfig(ShiftConfig):
    """Several corruptions, one after the other, all at one severity; also written
    shift=[blur,noise].
    """

    parts: list[str] = option([], "shifts, in their order")

    def __post_init__(self) -> None:
        super().__post_init__()
        Shift(tuple((name, self.severity) for name in self.parts))


@dataclass(frozen=True)
class Shift:
    """Corruptions, one after the other: a transform from a scaled image and its id to the shifted
    image.

    Args:
        parts: names and severities.
        seed: of the randomness, with the image's id and the part's place.

    Raises:
        InputError: an unknown name, or a severity outside 1..5.
    """

    parts: tuple[tuple[str, int], ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, severity in self.parts:
            if kind in FAMILIES:
                raise InputError(
                    f"{kind} is a family of shifts, one at a time: stream=continual "
                    f"stream.shifts={kind}"
                )
            if kind not in CORRUPTIONS:
                raise InputError(f"unknown shift {kind!r}: {closest(kind, CORRUPTIONS)}")
            if not 1 <= severity <= 5:
                raise InputError(f"severity {severity} of shift {kind} is outside 1..5")

    def __str__(self) -> str:
        return "+".join(f"{kind}{severity}" for kind, severity in self.parts)

    def check(self, channels: int, dimensions: int) -> None:
        """Refuse images that a part cannot be done to.

        Raises:
            InputError: a colour shift and other than three channels, or a 2D shift and other than
                two spatial dimensions.
        """
        for kind, _ in self.parts:
            if not CORRUPTIONS[kind].fits(channels, dimensions):
                fitting = sorted(
                    name for name, other in CORRUPTIONS.items() if other.fits(channels, dimensions)
                )
                needs = (
                    "colour images (three channels)"
                    if CORRUPTIONS[kind].colour and channels != 3
                    else "2D images"
                )
                raise InputError(
                    f"shift {kind} needs {needs}, and these are {dimensions}D with {channels} "
                    "channel(s): "
                    f"choose among {', '.join(fitting)}"
                )

    def __call__(self, image: Tensor, name: str) -> Tensor:
        """The shifted image, float32 and within 0..1; the same for the same image, id, seed and
        parts.

        A broken image, with values that are not finite, stays as it is: no shift may mend it or
        fail on it.

        Raises:
            InputError: see ``check``.
        """
        self.check(len(image), image.dim() - 1)
        if not image.isfinite().all():
            return image
        for place, (kind, severity) in enumerate(self.parts):
            corruption = CORRUPTIONS[kind]
            image = corruption.function(
                image, corruption.levels[severity - 1], self._generator(name, place)
            ).clamp(0, 1)
        return image

    def moved(self, mask: Tensor, name: str) -> Tensor:
        """An image's mask (*spatial), moved along by the parts that move pixels.

        Args:
            mask: whole numbers.
            name: the image's id.
        """
        for place, (kind, severity) in enumerate(self.parts):
            corruption = CORRUPTIONS[kind]
            if corruption.moved is not None:
                level = corruption.levels[severity - 1]
                mask = corruption.moved(mask, level, self._generator(name, place))
        return mask

    def _generator(self, name: str, place: int) -> np.random.Generator:
        """A part's own: two kinds of noise must not draw the same numbers."""
        key = [self.seed, zlib.crc32(name.encode()), *([place] if place else [])]
        return np.random.default_rng(key)


#: Shifts by name, with the dataclass of their options.
SHIFTS: Mapping[str, type] = CORRUPTIONS.view(
    lambda corruption: ShiftConfig, none=NoShiftConfig, compose=ComposeConfig
)


def create_shift(kind: str, config: NoShiftConfig | ShiftConfig) -> Shift | None:
    """The transform from a scaled image and its id to the shifted image; None where nothing is to
    be done.

    Raises:
        InputError: a composition of nothing.
    """
    if isinstance(config, NoShiftConfig):
        return None
    names = config.parts if isinstance(config, ComposeConfig) else [kind]
    if not names:
        raise InputError("shift=compose needs shifts: name some, shift=[blur,noise]")
    return Shift(tuple((name, config.severity) for name in names), config.seed)


def expanded(words: Sequence[str]) -> list[str]:
    """Command-line words with ``shift=[blur,noise]`` written out as the options of
    ``shift=compose``.
    """
    written = [
        ["shift=compose", f"shift.parts={w.removeprefix('shift=')}"]
        if w.startswith("shift=[")
        else [w]
        for w in words
    ]
    return [word for words in written for word in words]
