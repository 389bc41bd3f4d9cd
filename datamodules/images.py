"""Labelled images, in memory or in files, and what one item of them is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.datamodules.bands import MISSING, banded
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.placing import Place
from holdfast.datamodules.shown import Transform, shown_batch
from holdfast.datamodules.targets import (
    TASK_NAMES,
    UNLABELLED,
    Masks,
    TaskName,
    have_masks,
    parts_by_size,
    rarest_findings,
    read_masks,
    shares_of,
    subset_of,
)
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

Split = Literal["train", "val", "test", "target"]


class NoImages(InputError):
    """A split has no images, which is no fault where the run can do without."""


__all__ = ["MISSING", "UNLABELLED", "ImageSet", "NoImages", "Split", "Strings", "Transform"]

#: A column of text: fixed-width, or numpy's StringDType, which holds a million file names in a
#: tenth of the memory.
Strings = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageSet(Dataset[dict[str, Any]]):
    """Images of one split, with what is known of each.

    An item, and with tensors and lists a batch too, is a dictionary of

    - ``image``: (channels, *spatial) float32, spatial being H, W or D, H, W, scaled so that ``low``
      is 0 and ``high`` is 1;
    - what is known of it, by ``task``: ``label``, an integer class, or None (in a batch -1) where
      there is none; ``mask``, (*spatial) int64 classes, -1 where a pixel counts for nothing;
      ``findings``, (L,) float32, 1 present, 0 absent, NaN unknown;
    - ``id``, ``domain``, ``group``: strings; a group is a patient or a slide, and never straddles
      splits;
    - ``index``: the row in this set.

    Args:
        images: (N, *spatial) or (N, *spatial, channels), any integer or floating type; or files,
            which are as the latter.
        labels: (N,) classes, ``UNLABELLED`` where there is none, and where the task is another.
        ids: (N,) strings.
        domains: (N,) strings.
        groups: (N,) strings.
        class_names: names of the classes 0..C-1, or of the findings.
        low: raw value that becomes 0.
        high: raw value that becomes 1.
        transform: applied to a scaled image and its id, after scaling.
        metadata: further columns by name, (N,) each, such as the time of acquisition.
        spatial_dims: 2 for pictures, 3 for volumes.
        skipped: images that were asked for and could not be read, with the reason, by id.
        notes: what users should know of how the images were understood, a few words each.
        task: which kind of target the images have, or would have.
        findings: (N, L), 1 present, 0 absent, NaN unknown; None: not known of any image.
        masks: (N, *spatial) integer classes, ``UNLABELLED`` where a pixel counts for nothing; or
            files, which are as that; None: no image has one.
    """

    images: npt.NDArray[Any] | ImageFiles
    labels: npt.NDArray[np.int64]
    ids: Strings
    domains: Strings
    groups: Strings
    class_names: tuple[str, ...]
    low: float = 0.0
    high: float = 255.0
    transform: Transform | None = None
    metadata: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    spatial_dims: int = 2
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: TaskName = "single"
    findings: npt.NDArray[np.float32] | None = None
    masks: Masks | None = None

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
        lengths = {
            len(a)
            for a in (
                self.images,
                self.labels,
                self.ids,
                self.domains,
                self.groups,
                *self.metadata.values(),
                *(target for target in (self.findings, self.masks) if target is not None),
            )
        }
        if len(lengths) != 1:
            raise InputError(
                f"images, labels, domains, splits and groups differ in length: {sorted(lengths)}"
            )
        bad = self.labels[(self.labels >= len(self.class_names)) | (self.labels < UNLABELLED)]
        if len(bad):
            raise InputError(
                f"label {bad[0]} is out of range: there are {len(self.class_names)} classes, "
                "numbered from 0 "
                f"({', '.join(self.class_names)})"
            )
        self._check_target()

    def _check_target(self) -> None:
        if self.task not in TASK_NAMES:
            raise InputError(f"unknown task {self.task!r}: {closest(self.task, TASK_NAMES)}")
        of_task = {"multilabel": self.findings, "segmentation": self.masks}
        for task, target in of_task.items():
            if target is not None and task != self.task:
                raise InputError(
                    f"images of task {self.task} have what {task} asks for: say task={task}"
                )
        if self.task != "single" and (self.labels != UNLABELLED).any():
            raise InputError(f"images of task {self.task} have labels: leave them out")
        wanted = (len(self), self.num_classes)
        if self.findings is not None and self.findings.shape != wanted:
            raise InputError(
                f"findings have shape {self.findings.shape}: expected one value for each of "
                f"{wanted[0]} images and {wanted[1]} findings"
            )
        if isinstance(self.masks, np.ndarray) and (
            self.masks.shape != (len(self), *self.size) or self.masks.dtype.kind not in "iu"
        ):
            raise InputError(
                f"masks have shape {self.masks.shape} and type {self.masks.dtype}: expected whole "
                f"numbers of shape {(len(self), *self.size)}, a class for each pixel"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.batch([int(index)])
        item: dict[str, Any] = {"index": int(index)}
        for name in ("image", "mask", "findings", "id", "domain", "group"):
            if name in batch:
                item[name] = batch[name][0]
        if "label" in batch:
            label = int(batch["label"][0])
            item["label"] = None if label == UNLABELLED else label
        return item

    def batch(
        self,
        indices: Sequence[int] | npt.NDArray[np.int64],
        lost: dict[int, str] | None = None,
        *,
        raw: bool = False,
    ) -> dict[str, Any]:
        """The items as one batch: image (B, channels, *spatial), index (B,), strings as lists, and
        by ``task`` label (B,), mask (B, *spatial) or findings (B, L).

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
        target = self._target(rows, tuple(images.shape[2:]), lost)
        if self.transform is not None:
            names = [str(name) for name in self.ids[rows]]
            images, target = shown_batch([self.transform] * len(rows), images, names, target)
        return {
            "image": images,
            **target,
            "id": self.ids[rows].tolist(),
            "domain": self.domains[rows].tolist(),
            "group": self.groups[rows].tolist(),
            "index": torch.from_numpy(rows),
        }

    def _target(
        self, rows: npt.NDArray[np.int64], sides: tuple[int, ...], lost: dict[int, str] | None
    ) -> dict[str, Tensor]:
        """What is known of some images of these sides, by the key that a batch has it under."""
        if self.task == "single":
            return {"label": torch.from_numpy(self.labels[rows])}
        if self.task == "multilabel":
            unknown = np.full((len(rows), self.num_classes), np.nan, np.float32)
            found = unknown if self.findings is None else self.findings[rows]
            return {"findings": torch.from_numpy(found.astype(np.float32))}
        if self.masks is None:
            return {"mask": torch.full((len(rows), *sides), UNLABELLED)}
        return {"mask": read_masks(self.masks, rows, lost)}

    def place(self, row: int) -> Place:
        """Where an image lies in its file: what brings a mask of it into the file's space.

        Example:
            >>> ids = np.array(["one"])
            >>> images = ImageSet(np.zeros((1, 4, 6)), np.zeros(1, int), ids, ids, ids, ("a",))
            >>> images.place(0).back(torch.zeros(4, 6)).shape
            torch.Size([4, 6])
        """
        if isinstance(self.images, ImageFiles):
            return self.images.place(row)
        return Place.whole(self.size)

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
    def target(self) -> npt.NDArray[Any] | Masks | None:
        """What is known of the images: labels (N,), findings (N, L), or masks; None: nothing."""
        return {"single": self.labels, "multilabel": self.findings, "segmentation": self.masks}[
            self.task
        ]

    @property
    def labelled(self) -> bool:
        """Whether anything is known of any image: a label, a finding, or a mask."""
        return bool(self.known.any())

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether an image has a label, or a finding that is known, or a mask."""
        if self.task == "single":
            return self.labels != UNLABELLED
        if self.findings is not None:
            return np.asarray(np.isfinite(self.findings).any(1))
        if self.masks is not None:
            return have_masks(self.masks)
        return np.zeros(len(self), dtype=np.bool_)

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """(N, C) share of each class among the pixels of a mask; NaN where there is none.

        Raises:
            InputError: a pixel has none of the classes.
        """
        if self.masks is None:
            return np.full((len(self), self.num_classes), np.nan)
        return shares_of(self.masks, self.num_classes)

    @property
    def kinds(self) -> npt.NDArray[np.int64]:
        """(N,) what stands for the class of an image where one is asked for, as for its place in a
        stream; -1 where nothing is known.

        The label; the rarest finding that is present, 0 for none; of masks the third that it is in
        by the share of its foreground.
        """
        if self.task == "single":
            return self.labels
        if self.findings is not None:
            return rarest_findings(self.findings)
        return parts_by_size(self.shares)

    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) images of each class, or that show it, or have the finding."""
        if self.task == "single":
            return np.bincount(self.labels[self.known], minlength=self.num_classes)
        if self.findings is not None:
            return np.asarray((self.findings == 1).sum(0), dtype=np.int64)
        return np.asarray((self.shares > 0).sum(0), dtype=np.int64)

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
            labels=self.labels[rows],
            ids=self.ids[rows],
            domains=self.domains[rows],
            groups=self.groups[rows],
            metadata={name: values[rows] for name, values in self.metadata.items()},
            findings=None if self.findings is None else self.findings[rows],
            masks=None if self.masks is None else subset_of(self.masks, rows),
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
        return (raw.float() - self.low) / (self.high - self.low)

    @property
    def bytes_in_memory(self) -> bool:
        """Whether images are held as bytes, a quarter of what they are once they are scaled."""
        return isinstance(self.images, np.ndarray) and self.images.dtype == np.uint8
