"""Streams drawn with replacement from labelled images: what a healthy target might look like, as
often as it is asked for.
"""

from collections.abc import Callable, Iterator

import numpy as np

from datamodules.images import UNLABELLED, ImageSet
from datamodules.shifts import Shift
from datamodules.streams import Order, Stream
from tta.errors import InputError

#: Share of the frequent class in skewed streams.
_SKEW = 0.85

#: Mild shifts: what differs between two days of one scanner.
_SHIFTS: tuple[Shift | None, ...] = (
    None,
    *(Shift(((name, 1),)) for name in ("noise", "contrast", "brightness", "blur")),
)


def _iid(classes: list[Order], length: int, rng: np.random.Generator) -> Order:
    return rng.choice(np.concatenate(classes), length)


def _skewed(classes: list[Order], length: int, rng: np.random.Generator) -> Order:
    frequent = int(rng.integers(len(classes)))
    others = np.concatenate([rows for label, rows in enumerate(classes) if label != frequent])
    count = round(_SKEW * length)
    return rng.permutation(
        np.concatenate([rng.choice(classes[frequent], count), rng.choice(others, length - count)])
    )


def _blocks(classes: list[Order], length: int, rng: np.random.Generator) -> Order:
    sizes = [len(part) for part in np.array_split(np.arange(length), len(classes))]
    labels = rng.permutation(len(classes))
    return np.concatenate(
        [rng.choice(classes[label], size) for label, size in zip(labels, sizes, strict=True)]
    )


#: Orders of arrival: everything mixed, 85 % of one class, and class after class.
ORDERS: tuple[Callable[[list[Order], int, np.random.Generator], Order], ...] = (
    _iid,
    _skewed,
    _blocks,
)


def bootstrapped(images: ImageSet, count: int, length: int, seed: int) -> Iterator[Stream]:
    """Streams of ``length`` items, in each of ``ORDERS`` in turn, each under one mild shift or
    none.

    Args:
        images: labelled images; those without a label are left out.
        count: how many streams.
        length: items of a stream.
        seed: the same seed gives the same streams.

    Raises:
        InputError: fewer than two classes.
    """
    known = images.labels[images.labels != UNLABELLED]
    classes = [np.flatnonzero(images.labels == label) for label in np.unique(known)]
    if len(classes) < 2:
        raise InputError(
            "calibration needs validation images of at least two classes: label some, or "
            "calibrate=off"
        )
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        order = ORDERS[number % len(ORDERS)]
        shift = _SHIFTS[int(rng.integers(len(_SHIFTS)))]
        yield Stream(order(classes, length, rng).astype(np.int64), (shift,))
