"""Streams in which neighbours share a class: every image once a pass, but not independently."""

from dataclasses import dataclass

import numpy as np

from holdfast.datamodules.images import ImageSet
from holdfast.datamodules.streams.base import StreamConfig, as_they_are, rows_of_kinds
from holdfast.datamodules.streams.stream import Stream
from holdfast.tta.errors import InputError
from holdfast.tta.options import option


@dataclass
class BlocksConfig(StreamConfig):
    """Class after class, or a few classes after a few: every image once a pass, those of a class
    together.
    """

    blocks: int = option(
        1, "blocks that each class is cut into; every round shows one block of each class"
    )
    together: int = option(
        1, "classes that come at a time, mixed; where they don't divide, fewer come last"
    )
    by: str | None = option(
        None,
        "column whose values come in blocks, e.g. group, domain, site; null: classes, of several "
        "findings the rarest, of masks thirds by the share of the foreground",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("blocks", "together"):
            if getattr(self, name) < 1:
                raise InputError(f"stream.{name} must be at least 1")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items in rounds of one block a class; the classes come in a new random order every
        round.
        """
        blocks = [
            np.array_split(rows, self.blocks)
            for rows in rows_of_kinds(images, rng, "blocks", self.by)
        ]
        rows = []
        for turn in range(self.blocks):
            order = rng.permutation(len(blocks))
            for first in range(0, len(order), self.together):
                mixed = [blocks[c][turn] for c in order[first : first + self.together]]
                rows.append(rng.permutation(np.concatenate(mixed)) if len(mixed) > 1 else mixed[0])
        return as_they_are(images, np.concatenate(rows))


@dataclass
class DirichletConfig(StreamConfig):
    """Labels correlated in time: each class spread over slots by a Dirichlet law, every image once
    a pass.
    """

    delta: float = option(
        0.1,
        "concentration: the smaller, the fewer slots a class is in; large: every slot like the "
        "target",
    )
    slots: int | None = option(None, "slots of the stream; null: as many as there are classes")
    by: str | None = option(
        None, "column whose values are correlated in place of classes, as of stream=blocks"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta < float("inf"):
            raise InputError(f"stream.delta={self.delta} must be above 0")
        if self.slots is not None and self.slots < 1:
            raise InputError("stream.slots must be at least 1")

    def one_pass(self, images: ImageSet, rng: np.random.Generator) -> Stream:
        """Items slot by slot, within a slot class after class, as in RoTTA (CVPR 2023), after NOTE
        (NeurIPS 2022).
        """
        classes = rows_of_kinds(images, rng, "dirichlet", self.by)
        own = images.num_classes if images.target.divides and self.by is None else len(classes)
        slots = self.slots or own
        shares = rng.dirichlet(np.full(slots, self.delta), len(classes))
        pieces = [
            np.split(rows, np.round(np.cumsum(share[:-1]) * len(rows)).astype(int))
            for rows, share in zip(classes, shares, strict=True)
        ]
        rows = [pieces[c][s] for s in range(slots) for c in rng.permutation(len(classes))]
        return as_they_are(images, np.concatenate(rows))
