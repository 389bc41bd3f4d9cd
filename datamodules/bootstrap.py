"""Streams drawn with replacement from labelled images: what targets may look like, as often as it
is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from holdfast.datamodules.conventions import UNLABELLED
from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.shifts import CORRUPTIONS, Shift
from holdfast.datamodules.streams import Order, Stream
from holdfast.tta.errors import InputError

#: From a number of classes, a number of images, a batch's size and a random generator to the class
#: (N,) of each image.
Labels = Callable[[int, int, int, np.random.Generator], Order]

#: Corruptions that are composed. Others are left to benchmarks, which so tell about shifts that no
#: calibration has seen.
FAMILIES = ("noise", "contrast", "brightness", "blur", "gamma")
#: How many are composed, each as likely: none, one (twice as likely) or two.
_COMPOSED = (0, 1, 1, 2)
#: Range of the frequent class's share in a skewed stream.
_SKEW = (0.6, 0.95)
#: Lengths of a block of one class, in batches; concentrations of a Dirichlet order.
_BLOCKS, _CONCENTRATIONS = (0.5, 1.0, 2.0, 4.0, 8.0), (0.1, 0.3)


def _random(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    return rng.integers(classes, size=count)


def _skewed(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    share = rng.uniform(*_SKEW)
    shares = np.full(classes, (1 - share) / max(classes - 1, 1))
    shares[rng.integers(classes)] = share
    return rng.choice(classes, count, p=shares / shares.sum())


def _subset(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    few = rng.integers(2, max(classes, 3))
    return rng.choice(rng.permutation(classes)[:few], count)


def _blocks(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    size = max(1, int(batch * rng.choice(_BLOCKS)))
    blocks = -(-count // size)
    rounds = [rng.permutation(classes) for _ in range(-(-blocks // classes))]
    return np.repeat(np.concatenate(rounds)[:blocks], size)[:count]


def _dirichlet(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    concentration = np.full(classes, rng.choice(_CONCENTRATIONS))
    parts = [
        rng.choice(classes, batch, p=rng.dirichlet(concentration))
        for _ in range(-(-count // batch))
    ]
    return np.concatenate(parts)[:count]


def _one(classes: int, count: int, batch: int, rng: np.random.Generator) -> Order:
    return np.full(count, rng.integers(classes))


class Drawn(NamedTuple):
    """An order of arrival: the classes, and whether two shifts take turns."""

    labels: Labels
    recurring: bool = False


#: Orders by name: the one place where one is added.
ORDERS: Mapping[str, Drawn] = {
    "random": Drawn(_random),
    "skewed": Drawn(_skewed),
    "blocks": Drawn(_blocks),
    "subset": Drawn(_subset),
    "dirichlet": Drawn(_dirichlet),
    "one": Drawn(_one),
    "recurring": Drawn(_random, recurring=True),
}


def bootstrapped(
    images: ImageSet, count: int, length: int, batch_size: int, seed: int
) -> Iterator[tuple[str, Stream]]:
    """Streams of ``length`` items, in each of ``ORDERS`` in turn, under corruptions of random
    strength.

    Args:
        images: labelled images; those without a label are left out. Where one has no class,
            ``Target.kinds`` stand for classes.
        count: how many streams.
        length: items of a stream.
        batch_size: items of a batch, by which blocks are measured.
        seed: the same seed gives the same streams.

    Returns:
        For each stream the name of its order, and the stream.

    Raises:
        InputError: fewer than two classes.
    """
    kinds = images.target.kinds
    classes = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds[kinds != UNLABELLED])]
    if len(classes) < 2:
        raise InputError(
            "calibration needs validation images of at least two classes: label some, or "
            "calibrate=off"
        )
    names = [*ORDERS]
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        order = ORDERS[name]
        labels = order.labels(len(classes), length, batch_size, rng)
        rows = np.empty(length, np.int64)
        for label, members in enumerate(classes):
            places = labels == label
            rows[places] = rng.choice(members, int(places.sum()))
        shifts = tuple(_corruptions(images, rng) for _ in range(1 + order.recurring))
        which = None
        if order.recurring:
            period = batch_size * int(rng.integers(1, 5))
            which = (np.arange(length) // period) % 2
        yield name, Stream(rows, shifts, which)


def _corruptions(images: ImageSet, rng: np.random.Generator) -> Shift | None:
    """Some of the families that fit, each at a random severity."""
    fitting = [
        name for name in FAMILIES if CORRUPTIONS[name].fits(images.channels, len(images.size))
    ]
    chosen = rng.choice(fitting, min(int(rng.choice(_COMPOSED)), len(fitting)), replace=False)
    parts = tuple((str(name), int(rng.integers(1, 6))) for name in chosen)
    return Shift(parts, int(rng.integers(2**31))) if parts else None
