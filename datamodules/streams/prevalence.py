"""A stream in which classes are not equally frequent, but arrive independently."""

from dataclasses import dataclass

import numpy as np

from datamodules.images import ImageSet
from datamodules.streams.base import StreamConfig, as_they_are, class_index
from datamodules.streams.stream import Order, Stream
from tta.errors import InputError
from tta.options import option


@dataclass
class PrevalenceConfig(StreamConfig):
    """Classes at given shares, drawn with replacement, as long as the target."""

    label: str | int = option(0, "the frequent class, by number or name")
    fraction: float = option(0.85, "its share of the stream; the others keep their proportions")
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

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items, exactly in the asked shares up to rounding."""
        drawn = [rng.choice(rows, count) for rows, count in self._counts(images) if count]
        return as_they_are(images, rng.permutation(np.concatenate(drawn)))

    def _counts(self, images: ImageSet) -> list[tuple[Order, int]]:
        """Rows to draw from, and how many to draw."""
        names, total = images.class_names, len(images)
        if self.prevalence is None:
            label = class_index(self.label, names)
            groups = {
                names[label]: np.flatnonzero(images.labels == label),
                "other classes": np.flatnonzero((images.labels != label) & (images.labels >= 0)),
            }
            counts = [round(self.fraction * total)]
            counts.append(total - counts[0])
        else:
            if len(self.prevalence) != len(names):
                raise InputError(
                    f"stream.prevalence has {len(self.prevalence)} shares for {len(names)} "
                    "classes: give one for each of "
                    f"{', '.join(names)}"
                )
            groups = {
                name: np.flatnonzero(images.labels == label) for label, name in enumerate(names)
            }
            edges = np.round(np.cumsum(self.prevalence) * total).astype(int)
            counts = np.diff(edges, prepend=0).tolist()
        for (name, rows), count in zip(groups.items(), counts, strict=True):
            if count and not len(rows):
                raise InputError(
                    f"stream=prevalence needs labelled images of {name} in the target: use "
                    "stream=iid"
                )
        return list(zip(groups.values(), counts, strict=True))
