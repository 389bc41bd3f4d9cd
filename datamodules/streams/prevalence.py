"""A stream in which classes are not equally frequent, but arrive independently."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.streams.base import StreamConfig, as_they_are, class_index
from holdfast.datamodules.streams.stream import Order, Stream
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: What a part of the images is called, its rows, and how many are drawn of it.
_Part = tuple[str, Order, int]


@dataclass
class PrevalenceConfig(StreamConfig):
    """Classes at given shares, drawn with replacement, as long as the target."""

    label: str | int = option(0, "the frequent class, by number or name")
    fraction: float = option(0.85, "its share of the stream; the others keep their proportions")
    then: str | int | None = option(
        None, "the frequent class from the middle of the stream on; null: the same throughout"
    )
    prevalence: list[float] | None = option(
        None, "share of each class, in place of label and fraction: [.7,.2,.1]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise InputError(f"stream.fraction={self.fraction} is outside [0, 1]")
        shares = self.prevalence
        if shares is not None and not (
            shares and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6
        ):
            raise InputError(
                f"stream.prevalence={shares} must be shares of the classes, none below 0, that sum "
                "to 1"
            )
        if shares is not None and self.then is not None:
            raise InputError(
                "stream.then goes with label and fraction, and excludes stream.prevalence"
            )

    def all_passes(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items of all passes; with ``then``, the middle is that of all of them."""
        if self.then is None:
            return super().all_passes(images, rng)
        total = len(images) * self.passes
        counts = (total // 2, total - total // 2)
        halves = [
            self._drawn(self._majority(images, label, count), rng)
            for label, count in zip((self.label, self.then), counts, strict=True)
        ]
        return as_they_are(images, np.concatenate(halves))

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, exactly in the asked shares up to rounding."""
        if self.prevalence is None:
            parts = self._majority(images, self.label, len(images))
        else:
            parts = self._shares(images, self.prevalence)
        return as_they_are(images, self._drawn(parts, rng))

    def _drawn(self, parts: Sequence[_Part], rng: np.random.Generator) -> Order:
        """Rows drawn with replacement, so many of each part, shuffled."""
        for name, rows, count in parts:
            if count and not len(rows):
                raise InputError(
                    f"stream=prevalence needs labelled images of {name} in the target: use "
                    "stream=iid"
                )
        drawn = [rng.choice(rows, count) for _, rows, count in parts if count]
        return rng.permutation(np.concatenate(drawn))

    def _majority(self, images: ImageSet, label: str | int, total: int) -> list[_Part]:
        """Rows of the frequent class and of all others, and how many to draw of each."""
        number, count = class_index(label, images.class_names), round(self.fraction * total)
        own, others = images.target.drawn(number)
        return [(*own, count), (*others, total - count)]

    def _shares(self, images: ImageSet, shares: list[float]) -> list[_Part]:
        """Rows of each class, and how many to draw."""
        classes = images.target.divided()
        names = images.class_names
        if len(shares) != len(names):
            raise InputError(
                f"stream.prevalence has {len(shares)} shares for {len(names)} classes: give one "
                f"for each of {', '.join(names)}"
            )
        edges = np.round(np.cumsum(shares) * len(images)).astype(int)
        counts = np.diff(edges, prepend=0).tolist()
        return list(zip(names, classes, counts, strict=True))
