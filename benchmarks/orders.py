"""The benchmark's streams: which images, under which shift, in which order."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from holdfast.benchmarks.grid import BALANCED, ONE, ORDERS, SUBSET, SWITCH, Setting
from holdfast.benchmarks.passes import Batches, assembled, load_checkpoint
from holdfast.datamodules import ImageSet, StreamLoader, create_shift, create_stream, load_images
from holdfast.tta.errors import InputError

#: A stream of class blocks shows each class so often, and its last quarter every class.
_ROUNDS = 4


def order_words(order: str, classes: int, seed: int) -> list[str]:
    """How adapt.py is asked for an order of arrival.

    Args:
        order: one of ``ORDERS``, or one of adapt.py's streams.
        classes: C.
        seed: it draws the classes that a part of them has.
    """
    if order == SWITCH:
        return ["stream=prevalence", "stream.then=1"]
    if order not in ORDERS:
        return [f"stream={order}"]
    count = {BALANCED: classes, SUBSET: max(2, classes // 2), ONE: 1}[order]
    shown = np.random.default_rng(seed).permutation(classes)[:count]
    shares = [1 / count if label in shown else 0.0 for label in range(classes)]
    return ["stream=prevalence", f"stream.prevalence={shares}"]


def load_stream(
    setting: Setting, source: str, data: tuple[str, ...], length: int
) -> tuple[Batches, list[str]]:
    """The stream's batches, and how adapt.py is asked for them.

    A small target is passed over several times, and each is thinned, so that streams are about
    equally long.

    Args:
        setting: the stream.
        source: folder of the source model.
        data: how adapt.py is asked for the data set.
        length: images, at least.
    """
    classes = len(load_checkpoint(source).class_names)
    kind = order_words(setting.stream, classes, setting.seed)
    kind.append(f"stream.batch_size={setting.batch_size}")
    shift = [f"shift={setting.shift}"]
    if setting.severity:
        shift += [f"shift.severity={setting.severity}", f"shift.seed={setting.seed}"]
    words = [f"source={source}", *data, *shift, *kind, f"seed={setting.seed}"]
    visits = 1
    if setting.stream == "recurring":
        visits = assembled(words).config.stream.options.times
        words += _there_and_back(source, data)
    images = _images(source, tuple(word for word in words if word.startswith("data")))
    a_visit = -(-length // visits)
    passes = -(-a_visit // len(images))
    images = thinned(images, -(-a_visit // passes), setting.seed)
    words.append(f"stream.passes={passes}")
    if setting.stream == "blocks":
        words.append(f"stream.blocks={max(1, round(_ROUNDS / passes))}")
    config = assembled(words).config
    images = images.transformed(create_shift(config.shift.kind, config.shift.options))
    items = create_stream(config.stream.options, images, setting.seed)
    task = load_checkpoint(source).meaning
    return Batches(StreamLoader(images, items, setting.batch_size), task), words


def write_labels(
    path: Path, batches: Batches, share: float, names: Sequence[str], seed: int
) -> None:
    """Write labels of some of a stream's images, drawn at random, at least one.

    Args:
        path: CSV, as ``labels=FILE`` reads it.
        batches: of the stream; an image that it shows several times has one label.
        share: of labels, in all that is shown.
        names: of the classes.
        seed: of the draw.

    Raises:
        InputError: the images have no one label.
    """
    if batches.truth.dim() > 1:
        raise InputError("labelled=N is of one label an image: leave it out of policies")
    ids = [name for batch in batches for name in batch["id"]]
    pairs = zip(ids, batches.truth.tolist(), strict=True)
    known = sorted({name: label for name, label in pairs if label >= 0}.items())
    count = max(1, round(share * len(ids)))
    drawn = np.random.default_rng(seed).permutation(len(known))[:count]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(known[row][0], names[known[row][1]]) for row in drawn.tolist()]
        csv.writer(file).writerows([("id", "label"), *rows])


def thinned(images: ImageSet, count: int, seed: int) -> ImageSet:
    """About ``count`` images drawn at random, equally many of each domain; all of them where there
    are no more.
    """
    domains = dict.fromkeys(images.domains.tolist())
    share, rng = -(-count // len(domains)), np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(images.domains == name))[:share] for name in domains]
    )
    return images.subset(rows)


@lru_cache(maxsize=4)
def _images(source: str, data: tuple[str, ...]) -> ImageSet:
    """The target's images, unshifted."""
    return assembled([f"source={source}", *data]).images


@lru_cache
def _there_and_back(source: str, data: tuple[str, ...]) -> list[str]:
    """Recurring domains: the target's and the source's own in turn; the target alone where there is
    no other domain.

    Raises:
        InputError: the data set's target is something else than the names of domains.
    """
    config = assembled([f"source={source}", *data]).config
    target = config.data.options.target
    if target is None:
        return []
    names = [target] if isinstance(target, str) else list(target)
    home = str(load_images(config.data.kind, config.data.options, "test").domains[0])
    if home in names:
        return []
    word = f"data.target=[{','.join([*names, home])}]"
    try:
        both = assembled([f"source={source}", *data, word]).config.data
        served = set(load_images(both.kind, both.options, "target").domains.tolist())
    except InputError:
        served = set()
    if served != {*names, home}:
        raise InputError(
            f"stream=recurring goes from domain to domain, and data.target={target} of "
            f"data={config.data.kind} names none: "
            "take a data set whose target is a domain, such as npz or table, or leave recurring "
            "out of streams"
        )
    return [word]
