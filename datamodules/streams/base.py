"""What every stream is: options, and the items of one pass."""

from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.streams.stream import Order, Stream, joined
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.settings import BATCH_SIZE


@dataclass
class StreamConfig:
    """Every image of the target once a pass, shuffled."""

    batch_size: int = option(*BATCH_SIZE)
    passes: int = option(1, "how often the stream goes over the target")
    window: int | None = option(None, "newest images that an update sees; null: those of the batch")

    max_wait: float | None = option(
        None,
        "of data=watch: seconds after its first image at which a short batch is served, without "
        "learning from it; null: it waits until it is full",
    )

    def __post_init__(self) -> None:
        if self.max_wait is not None and self.max_wait < 0:
            raise InputError(f"stream.max_wait={self.max_wait} must not be negative")
        for name in ("batch_size", "passes"):
            if getattr(self, name) < 1:
                raise InputError(f"stream.{name} must be at least 1")
        if self.window is not None and self.window < self.batch_size:
            raise InputError(
                f"stream.window={self.window} must be at least stream.batch_size={self.batch_size}"
            )

    @property
    def seen(self) -> int:
        """Images that the method sees at once: the window's, or the batch's."""
        return self.window or self.batch_size

    def all_passes(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """The items of all passes, one pass after the other; arguments as of ``one_pass``."""
        return joined([self.one_pass(images, rng) for _ in range(self.passes)])

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """The items of one pass over the target.

        Args:
            images: the target, with at least one image.
            rng: where all randomness comes from.

        Raises:
            InputError: the stream needs labels, domains or else that the target has not got.
        """
        return as_they_are(images, rng.permutation(len(images)))


def as_they_are(images: ImageSet, rows: Order) -> Stream:
    """A stream of rows under the image set's own transform."""
    return Stream(rows, (images.transform,))


def class_index(label: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by number or name."""
    if str(label) in class_names:
        return class_names.index(str(label))
    if str(label).isdigit() and int(label) < len(class_names):
        return int(label)
    raise InputError(
        f"label {label!r} is none of the classes: {', '.join(class_names)} (or "
        f"0..{len(class_names) - 1})"
    )


def rows_of_kinds(
    images: ImageSet, rng: np.random.Generator, stream: str, by: str | None = None
) -> list[Order]:
    """Shuffled rows of each kind of image that occurs.

    Args:
        images: the target.
        rng: where the order within a kind comes from.
        stream: what asks, for messages.
        by: column whose values are the kinds; None: ``Target.kinds``, the classes.

    Raises:
        InputError: nothing is known of an image, or there is no such column.
    """
    if by is not None:
        kinds = images.column(by)
        return [rng.permutation(np.flatnonzero(kinds == kind)) for kind in np.unique(kinds)]
    unknown = int((~images.target.known).sum())
    if unknown:
        raise InputError(
            f"stream={stream} orders images by {images.target.ordered_by}, but {unknown} of the "
            f"target's {len(images)} have no {images.target.called}: use stream=iid"
        )
    kinds = images.target.kinds
    return [rng.permutation(np.flatnonzero(kinds == kind)) for kind in np.unique(kinds)]
