"""Streams that go through domains, or through shifts of their own on top of the run's."""

from dataclasses import dataclass, replace

import numpy as np

from holdfast.datamodules.images import ImageSet, Transform
from holdfast.datamodules.shifts import Shift, members
from holdfast.datamodules.streams.base import StreamConfig, as_they_are
from holdfast.datamodules.streams.stream import Order, Stream, joined
from holdfast.tta.errors import InputError
from holdfast.tta.options import option


@dataclass
class _ShiftingConfig(StreamConfig):
    """A stream that may bring shifts."""

    shifts: str | list[str] | None = option(
        None,
        "shifts of the stream's own, or a modality's family, after shift=; null: the target's "
        "domains instead",
    )
    severity: int = option(3, "severity of the stream's own shifts, 1 to 5")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shifts is not None and not self.shifts:
            raise InputError("stream.shifts is empty: name some, stream.shifts=[noise,blur]")
        for name in self.names or ["noise"]:
            _after(None, name, self.severity)

    @property
    def names(self) -> list[str]:
        """The stream's own shifts, families written out."""
        return members(self.shifts or [])

    def own(self, images: ImageSet) -> tuple[Transform | None, ...]:
        """The images' transform, each time with another of the stream's shifts after it."""
        return tuple(_after(images.transform, name, self.severity) for name in self.names)


@dataclass
class ContinualConfig(_ShiftingConfig):
    """The target's domains one after the other, or the whole target under one shift after the
    other.
    """

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """One visit each: every image of the domain, or of the target, once, shuffled."""
        if self.shifts is None:
            _check_several_domains(images, "continual")
        return _shuffled(self.visits(images), rng)

    def visits(self, images: ImageSet) -> list[Stream]:
        """What is visited, in the order in which target or ``shifts`` list it."""
        if self.shifts is None:
            return [as_they_are(images, rows) for rows in _rows_of_domains(images)]
        return [Stream(np.arange(len(images)), (shift,)) for shift in self.own(images)]


@dataclass
class RecurringConfig(ContinualConfig):
    """Domains, or shifts, one after the other, again and again; a single domain is simply
    repeated.
    """

    times: int = option(5, "visits of each")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times < 1:
            raise InputError("stream.times must be at least 1")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """All visits; each shows every image of its domain, or of the target, once, in a new
        order.
        """
        return _shuffled(self.visits(images) * self.times, rng)


@dataclass
class MixedConfig(_ShiftingConfig):
    """Domains, or shifts, in one shuffled stream; every image once a pass."""

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, where there are shifts each under one of them, in equal shares."""
        rows = rng.permutation(len(images))
        if self.shifts is not None:
            return Stream(
                rows, self.own(images), rng.permutation(np.arange(len(rows)) % len(self.names))
            )
        _check_several_domains(images, "mixed")
        return as_they_are(images, rows)


@dataclass
class GradualConfig(_ShiftingConfig):
    """Severity rises step by step to its highest and falls again, shift after shift; every image
    once a shift.
    """

    shifts: str | list[str] | None = option(
        None,
        "shifts whose severity ramps, one after the other, or a modality's family; null: that of "
        "shift=",
    )
    severity: int = option(5, "highest severity of the ramp, 1 to 5")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, shuffled, in equal steps of severity 1, 2, … highest, … 2, 1: the gradual protocol
        of CoTTA (CVPR 2022).
        """
        levels, base, count = range(1, self.severity + 1), images.transform, len(images)
        if self.shifts is not None:
            ramps = [tuple(_after(base, name, level) for level in levels) for name in self.names]
        elif isinstance(base, Shift):
            ramps = [
                tuple(
                    replace(base, parts=tuple((name, level) for name, _ in base.parts))
                    for level in levels
                )
            ]
        else:
            raise InputError(
                "stream=gradual ramps the severity of a shift: choose one, shift=noise, or several "
                "in turn, "
                "stream.shifts=[noise,blur]"
            )
        steps = np.array([*levels, *reversed(levels[:-1])])[
            np.arange(count) * (2 * self.severity - 1) // count
        ]
        return joined([Stream(rng.permutation(count), ramp, steps - 1) for ramp in ramps])


def _rows_of_domains(images: ImageSet) -> list[Order]:
    """Rows of each domain, in the order in which the target lists them."""
    return [
        np.flatnonzero(images.domains == name) for name in dict.fromkeys(images.domains.tolist())
    ]


def _check_several_domains(images: ImageSet, stream: str) -> None:
    if len(_rows_of_domains(images)) < 2:
        raise InputError(
            f"stream={stream} needs several domains in the target, and it has one "
            f"({images.domains[0]}): "
            "name more, data.target=[A,B], or shifts, stream.shifts=[noise,blur]"
        )


def _shuffled(visits: list[Stream], rng: np.random.Generator) -> Stream:
    return joined([Stream(rng.permutation(visit.rows), visit.shifts) for visit in visits])


def _after(base: Transform | None, name: str, severity: int) -> Shift:
    """The shift ``name`` after the images' own transform."""
    if base is not None and not isinstance(base, Shift):
        raise InputError(
            "the images' transform is not made by create_shift: no stream can add shifts to it"
        )
    return Shift((*(base.parts if base else ()), (name, severity)), base.seed if base else 0)
