"""Labelled images, in memory or in files, and what one item of them is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.datamodules.bands import banded
from holdfast.datamodules.conventions import Strings
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.placing import Place
from holdfast.datamodules.shown import Transform, shown_batch, shown_together
from holdfast.datamodules.targets import Target, kind_of
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

Split = Literal["train", "val", "test", "target"]


class NoImages(InputError):
    """A split has no images, which is no fault where the run can do without."""


__all__ = ["ImageSet", "NoImages", "Split", "Transform"]


@dataclass(frozen=True)
class ImageSet(Dataset[dict[str, Any]]):
    """Images of one split, with what is known of each.

    An item, and with tensors and lists a batch too, is a dictionary of

    - ``image``: (channels, *spatial) float32, spatial being H, W or D, H, W, scaled so that ``low``
      is 0 and ``high`` is 1;
    - what is known of it, by the kind of ``target``: ``label``, an integer class, or None (in a
      batch -1) where there is none; ``mask``, (*spatial) int64 classes, -1 where a pixel counts for
      nothing; ``findings``, (L,) float32, 1 present, 0 absent, NaN unknown;
    - ``id``, ``domain``, ``group``: strings; a group is a patient or a slide, and never straddles
      splits;
    - ``index``: the row in this set.

    Args:
        images: (N, *spatial) or (N, *spatial, channels), any integer or floating type; or files,
            which are as the latter.
        target: what is known of them, and the names of the classes, or findings.
        ids: (N,) strings.
        domains: (N,) strings.
        groups: (N,) strings.
        low: raw value that becomes 0.
        high: raw value that becomes 1.
        transform: applied to a scaled image and its id, after scaling.
        metadata: further columns by name, (N,) each, such as the time of acquisition.
        spatial_dims: 2 for pictures, 3 for volumes.
        skipped: images that were asked for and could not be read, with the reason, by id.
        notes: what users should know of how the images were understood, a few words each.
        task: which asks for such a target; empty: the usual one.
    """

    images: npt.NDArray[Any] | ImageFiles
    target: Target
    ids: Strings
    domains: Strings
    groups: Strings
    low: float = 0.0
    high: float = 255.0
    transform: Transform | None = None
    metadata: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    spatial_dims: int = 2
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: str = ""

    def __post_init__(self) -> None:
        if len(self.images.shape) - self.spatial_dims not in (1, 2) or not (
            np.issubdtype(self.images.dtype, np.integer)
            or np.issubdtype(self.images.dtype, np.floating)
        ):
            sides = "H, W" if self.spatial_dims == 2 else "D, H, W"
            raise InputError(
                f"images have shape {self.images.shape} and type {self.images.dtype}: "
                f"they must be numbers of shape (N, {sides}) or (N, {sides}, channels)"
            )
        columns = (self.ids, self.domains, self.groups, *self.metadata.values())
        lengths = {len(self.images), len(self.target), *map(len, columns)}
        if len(lengths) != 1:
            raise InputError(
                f"images, labels, domains, splits and groups differ in length: {sorted(lengths)}"
            )
        if not self.task:
            object.__setattr__(self, "task", self.target.usual)
        if kind_of(self.task).key != self.target.key:
            meant = self.target.usual
            raise InputError(
                f"images of task {self.task} have what {meant} asks for: say task={meant}"
            )
        self.target.check(self.size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch, key = self.batch([int(index)]), self.target.key
        item: dict[str, Any] = {"index": int(index)}
        for name in ("image", "id", "domain", "group"):
            item[name] = batch[name][0]
        item[key] = self.target.item(batch[key][0])
        return item

    def batch(
        self,
        indices: Sequence[int] | npt.NDArray[np.int64],
        lost: dict[int, str] | None = None,
        *,
        raw: bool = False,
    ) -> dict[str, Any]:
        """The items as one batch: image (B, channels, *spatial), index (B,), strings as lists, and
        by the kind of ``target`` label (B,), mask (B, *spatial) or findings (B, L).

        Args:
            indices: (B,) rows.
            lost: is filled with the reason for each place whose file cannot be read, where another
                image of the batch then stands (NaN where there is none); None: such a file is an
                error.
            raw: images as they are held in memory, for ``scale``, and under no transform.

        Raises:
            InputError: a file cannot be read.
        """
        rows = np.asarray(indices, dtype=np.int64)
        images = self._raw(rows) if raw else self._scaled(rows, lost)
        target = self.target.batch(rows, tuple(images.shape[2:]), lost)
        if self.transform is not None and not raw:
            names = [str(name) for name in self.ids[rows]]
            transforms = [self.transform] * len(rows)
            if self.target.of_pixels:
                images, target = shown_together(transforms, images, names, target)
            else:
                images = shown_batch(transforms, images, names)
        return {
            "image": images,
            self.target.key: target,
            "id": self.ids[rows].tolist(),
            "domain": self.domains[rows].tolist(),
            "group": self.groups[rows].tolist(),
            "index": torch.from_numpy(rows),
        }

    def check_grouped(self) -> None:
        """Refuse to score patients where nothing says which images are of one.

        Raises:
            InputError: each image is a group of its own, since none is named.
        """
        if len(self) > 1 and bool((self.groups == self.ids).all()):
            raise InputError(
                "data.aggregate=group scores patients, and nothing says which images are of one: "
                "name the column that does, data.group=COLUMN, or leave it out"
            )

    def place(self, row: int) -> Place:
        """Where an image lies in its file: what brings a mask of it into the file's space.

        Example:
            >>> ids = np.array(["one"])
            >>> from holdfast.datamodules.targets import LabelTarget
            >>> images = ImageSet(np.zeros((1, 4, 6)), LabelTarget.of_nothing(1), ids, ids, ids)
            >>> images.place(0).back(torch.zeros(4, 6)).shape
            torch.Size([4, 6])
        """
        if isinstance(self.images, ImageFiles):
            return self.images.place(row)
        return Place.whole(self.size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0..C-1, or of the findings."""
        return self.target.names

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) the one class of each image, ``UNLABELLED`` where it has none."""
        return self.target.labels

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image; 1 for arrays without a channel axis."""
        return int(self.images.shape[-1]) if len(self.images.shape) == self.spatial_dims + 2 else 1

    @property
    def ragged(self) -> bool:
        """Whether images have several sides, so that they come one by one."""
        return isinstance(self.images, ImageFiles) and self.images.ragged

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width; of volumes depth, height and width; of several sides the most
        frequent.
        """
        return tuple(int(side) for side in self.images.shape[1 : self.spatial_dims + 1])

    @property
    def labelled(self) -> bool:
        """Whether anything is known of any image: a label, a finding, or a mask."""
        return bool(self.target.known.any())

    def transformed(self, transform: Transform | None) -> "ImageSet":
        """The same images with a transform."""
        return replace(self, transform=transform)

    def column(self, name: str) -> npt.NDArray[Any]:
        """What is known of each image under a name: a column of the metadata, ``domain`` or
        ``group``.

        ``age/20`` is the column age in bands of 20: 0-19, 20-39, …; empty where it is not known.

        Raises:
            InputError: there is no such column, or it is to be cut into bands and holds no numbers.
        """
        name, _, width = name.partition("/")
        known = {"domain": self.domains, "group": self.groups, **self.metadata}
        if name not in known:
            raise InputError(f"the images have no column {name!r}: {closest(name, known)}")
        return banded(known[name], name, width) if width else known[name]

    def subset(self, rows: npt.NDArray[Any]) -> "ImageSet":
        """Some of the images, by row number or mask."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(
            self,
            images=self.images.subset(rows)
            if isinstance(self.images, ImageFiles)
            else self.images[rows],
            target=self.target.subset(rows),
            ids=self.ids[rows],
            domains=self.domains[rows],
            groups=self.groups[rows],
            metadata={name: values[rows] for name, values in self.metadata.items()},
        )

    def _scaled(self, rows: Any, lost: dict[int, str] | None = None) -> Tensor:
        if isinstance(self.images, ImageFiles) and lost is not None:
            images, reasons = self.images.read(rows, (self.low, self.high))
            lost |= reasons
            return images
        if isinstance(self.images, ImageFiles):
            return self.images.scaled(rows, (self.low, self.high))
        return self.scale(self._raw(rows))

    def _raw(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """(B, channels, *spatial) values of images in memory, as they are."""
        assert isinstance(self.images, np.ndarray), "files are scaled as they are read"
        raw = torch.from_numpy(np.ascontiguousarray(self.images[rows]))
        return raw.movedim(-1, 1) if raw.dim() == self.spatial_dims + 2 else raw.unsqueeze(1)

    def scale(self, raw: Tensor) -> Tensor:
        """Raw values so that ``low`` is 0 and ``high`` is 1, where they lie."""
        # By a tensor: a device multiplies by one over a plain number, which rounds otherwise.
        span = torch.full((), self.high - self.low, device=raw.device)
        return (raw.float() - self.low) / span

    @property
    def bytes_in_memory(self) -> bool:
        """Whether images are held as bytes, a quarter of what they are once they are scaled."""
        return isinstance(self.images, np.ndarray) and self.images.dtype == np.uint8
