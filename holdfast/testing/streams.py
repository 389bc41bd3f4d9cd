"""What every stream promises, as one function for anybody's tests."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from holdfast.datamodules import (
    STREAMS,
    ImageSet,
    Stream,
    StreamLoader,
    create_stream,
)
from holdfast.datamodules.streams import ReplayConfig, StreamConfig
from holdfast.datamodules.targets import LabelTarget
from holdfast.tta.errors import InputError, said

_COUNT, _BATCH = 60, 16


def check_stream(stream: type[StreamConfig] | str, **options: Any) -> None:
    """Check that a stream keeps what streams promise, on labelled images of two domains.

    Args:
        stream: its dataclass, or the name that it is registered by.
        **options: of the stream.

    Raises:
        AssertionError: a promise is broken; the sentence says which, and what to do.

    Example:
        >>> check_stream("prevalence", fraction=0.7)
    """
    kind = STREAMS[stream] if isinstance(stream, str) else stream
    config, images = kind(**options), _images()
    items = create_stream(config, images, 0)
    rows = np.asarray(items.rows)
    _require(
        len(rows) > 0 and rows.dtype == np.int64 and 0 <= rows.min() <= rows.max() < _COUNT,
        kind,
        "names rows that there are not",
        "return int64 rows of the images, and at least one",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = create_stream(config, images, 0)
    _require(
        np.array_equal(again.rows, rows),
        kind,
        "has another order under the same seed",
        "draw from the generator that is passed, and from nothing else",
    )
    twice = create_stream(replace(config, passes=2 * config.passes), images, 0)
    _require(
        len(twice) == 2 * len(items),
        kind,
        f"has {len(twice)} items in twice the passes that have {len(items)}",
        "return one pass from one_pass, or heed passes in all_passes",
    )
    _check_resumed(kind, images, items)
    _check_replayed(kind, images, items)
    _check_unlabelled(kind, config, images)


def _check_resumed(kind: type, images: ImageSet, items: Stream) -> None:
    straight = [batch["id"] for batch in StreamLoader(images, items, _BATCH)]
    loader = StreamLoader(images, items, _BATCH)
    loader.load_state_dict({"position": 1, "lost": []})
    _require(
        [batch["id"] for batch in loader] == straight[1:],
        kind,
        "does not go on where it stopped",
        "name all items beforehand, in Stream.rows",
    )


def _check_replayed(kind: type, images: ImageSet, items: Stream) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stream.csv"
        try:
            items.save(path, images)
        except InputError as error:
            raise AssertionError(f"{kind.__name__} cannot be saved: {said(error)}") from error
        again = create_stream(ReplayConfig(path=str(path)), images.transformed(None), 5)
    same = [str(one) for one in again.shifts_of_items()] == [
        str(one) for one in items.shifts_of_items()
    ]
    _require(
        same and np.array_equal(again.rows, items.rows),
        kind,
        "is another when it is replayed",
        "give each item a shift by create_shift, or None",
    )


def _check_unlabelled(kind: type, config: StreamConfig, images: ImageSet) -> None:
    bare = replace(images, target=LabelTarget.of_nothing(_COUNT), metadata={})
    try:
        create_stream(config, bare, 0)
    except InputError:  # which says what it needs
        return
    except Exception as error:
        raise AssertionError(
            f"{kind.__name__} fails on images without labels ({said(error)}): raise InputError "
            "with what it needs, or do without"
        ) from error


def _images() -> ImageSet:
    names = np.arange(_COUNT).astype(str)
    return ImageSet(
        images=np.random.default_rng(0).integers(0, 255, (_COUNT, 8, 8), np.uint8),
        target=LabelTarget(np.arange(_COUNT) % 3, ("x", "y", "z")),
        ids=names,
        domains=np.where(np.arange(_COUNT) < _COUNT // 2, "a", "b"),
        groups=names,
        metadata={"time": np.arange(_COUNT)[::-1].copy()},
    )


def _require(holds: bool, kind: type, wrong: str, remedy: str) -> None:
    if not holds:
        raise AssertionError(f"{kind.__name__} {wrong}: {remedy}")
