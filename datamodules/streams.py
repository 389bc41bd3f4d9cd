"""In which order the target's images arrive, and the loader that serves them in that order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from datamodules.images import ImageSet
from tta.errors import InputError
from tta.options import option

Order = npt.NDArray[np.int64]


@dataclass
class StreamConfig:
    """Every image of the target once a pass, shuffled."""

    batch_size: int = option(64, "images that arrive together")
    passes: int = option(1, "how often the stream goes over the target")

    def __post_init__(self) -> None:
        for name in ("batch_size", "passes"):
            if getattr(self, name) < 1:
                raise InputError(f"stream.{name} must be at least 1")


@dataclass
class PrevalenceConfig(StreamConfig):
    """One class at a given share, drawn with replacement, as long as the target."""

    label: str | int = option(0, "the frequent class, by number or name")
    fraction: float = option(0.85, "its share of the stream")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise InputError(f"stream.fraction={self.fraction} is outside [0, 1]")


#: Streams by name, with the dataclass of their options.
STREAMS: dict[str, type[StreamConfig]] = {"iid": StreamConfig, "prevalence": PrevalenceConfig}


def stream_order(config: StreamConfig, images: ImageSet, seed: int) -> Order:
    """Rows of the image set in order of arrival, all passes one after the other.

    Args:
        config: the stream.
        images: the target.
        seed: the same seed gives the same order.

    Raises:
        InputError: the target is empty, or the stream needs labels that it has not got.
    """
    if not len(images):
        raise InputError("the target has no images: check data.target")
    rng = np.random.default_rng(seed)
    if isinstance(config, PrevalenceConfig):
        passes = [_with_prevalence(config, images, rng) for _ in range(config.passes)]
    else:
        passes = [rng.permutation(len(images)) for _ in range(config.passes)]
    return np.concatenate(passes)


def _with_prevalence(config: PrevalenceConfig, images: ImageSet, rng: np.random.Generator) -> Order:
    label = class_index(config.label, images.class_names)
    frequent = np.flatnonzero(images.labels == label)
    others = np.flatnonzero((images.labels != label) & (images.labels >= 0))
    count = round(config.fraction * len(images))
    if (count and not len(frequent)) or (count < len(images) and not len(others)):
        raise InputError(
            f"stream=prevalence needs labelled images of {images.class_names[label]} and of other classes in the target: "
            "use stream=iid"
        )
    drawn = [rng.choice(rows, size) for rows, size in ((frequent, count), (others, len(images) - count)) if size]
    return rng.permutation(np.concatenate(drawn))


def class_index(label: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by number or name."""
    if str(label) in class_names:
        return class_names.index(str(label))
    if str(label).isdigit() and int(label) < len(class_names):
        return int(label)
    raise InputError(f"label {label!r} is none of the classes: {', '.join(class_names)} (or 0..{len(class_names) - 1})")


class _Batches(Dataset[dict[str, Any]]):
    """The stream as a dataset whose items are whole batches, so that workers decode and collate them."""

    def __init__(self, images: ImageSet, order: Order, batch_size: int) -> None:
        self.images, self.order, self.batch_size = images, order, batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images.batch(rows)


class StreamLoader:
    """Batches of the target in order of arrival.

    It has a length, ``state_dict`` and ``load_state_dict``, with which Lightning resumes at the exact batch.

    Args:
        images: the target.
        order: rows in order of arrival, from ``stream_order``.
        batch_size: images a batch; the last one may be short.
        workers: processes that prepare batches; 0: none but this one.
    """

    def __init__(self, images: ImageSet, order: Order, batch_size: int, workers: int = 0) -> None:
        self.images, self.order, self.batch_size = images, order, batch_size
        self.workers = workers
        self.position = 0  # where the next iteration starts
        self._handed_out = 0

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        start, self.position = self.position, 0
        batches = _Batches(self.images, self.order[start * self.batch_size :], self.batch_size)
        loader = DataLoader(batches, batch_size=None, num_workers=self.workers)
        for index, batch in enumerate(loader):
            self._handed_out = start + index + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches already handed out."""
        return {"position": self._handed_out}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next iteration behind the batches that were handed out."""
        self.position = state_dict["position"]
