"""Labelled images, in memory or in files, and what one item of them is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.datamodules.files import ImageFiles
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

Split = Literal["train", "val", "test", "target"]

#: Labels of images that have none.
UNLABELLED = -1


class NoImages(InputError):
    """A split has no images, which is no fault where the run can do without."""


#: What pandas, R and spreadsheets write where a value is missing, and -1, which many data sets do.
#: "none" in small letters is a grade (none, mild, severe), and no such word.
MISSING = (
    *("-1", "-1.0", "nan", "NaN", "-nan", "-NaN", "NA", "<NA>", "#NA", "#N/A"),
    *("N/A", "n/a", "null", "NULL", "None", "NaT"),
)

#: How many of DICOM's units of age make a year.
_IN_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}

#: A column of text: fixed-width, or numpy's StringDType, which holds a million file names in a
#: tenth of the memory.
Strings = npt.NDArray[Any]

#: From a scaled image and its id to the image that is shown.
Transform = Callable[[Tensor, str], Tensor]


@dataclass(frozen=True)
class ImageSet(Dataset[dict[str, Any]]):
    """Images of one split, with what is known of each.

    An item, and with tensors and lists a batch too, is a dictionary of

    - ``image``: (channels, *spatial) float32, spatial being H, W or D, H, W, scaled so that ``low``
      is 0 and ``high`` is 1;
    - ``label``: an integer class, or None (in a batch -1) where there is none;
    - ``id``, ``domain``, ``group``: strings; a group is a patient or a slide, and never straddles
      splits;
    - ``index``: the row in this set.

    Args:
        images: (N, *spatial) or (N, *spatial, channels), any integer or floating type; or files,
            which are as the latter.
        labels: (N,) classes, ``UNLABELLED`` where there is none.
        ids: (N,) strings.
        domains: (N,) strings.
        groups: (N,) strings.
        class_names: names of the classes 0..C-1.
        low: raw value that becomes 0.
        high: raw value that becomes 1.
        transform: applied to a scaled image and its id, after scaling.
        metadata: further columns by name, (N,) each, such as the time of acquisition.
        spatial_dims: 2 for pictures, 3 for volumes.
        skipped: images that were asked for and could not be read, with the reason, by id.
        notes: what users should know of how the images were understood, a few words each.
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

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = int(self.labels[index])
        return {
            "image": self._scaled([index])[0],
            "label": None if label == UNLABELLED else label,
            "id": str(self.ids[index]),
            "domain": str(self.domains[index]),
            "group": str(self.groups[index]),
            "index": int(index),
        }

    def batch(
        self, indices: Sequence[int] | npt.NDArray[np.int64], lost: dict[int, str] | None = None
    ) -> dict[str, Any]:
        """The items as one batch: image (B, channels, H, W), label and index (B,), strings as
        lists.

        Args:
            indices: (B,) rows.
            lost: is filled with the reason for each place whose file cannot be read, where another
                image of the batch then stands (NaN where there is none); None: such a file is an
                error.

        Raises:
            InputError: a file cannot be read.
        """
        rows = np.asarray(indices, dtype=np.int64)
        return {
            "image": self._scaled(rows, lost),
            "label": torch.from_numpy(self.labels[rows]),
            "id": self.ids[rows].tolist(),
            "domain": self.domains[rows].tolist(),
            "group": self.groups[rows].tolist(),
            "index": torch.from_numpy(rows),
        }

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image; 1 for arrays without a channel axis."""
        return int(self.images.shape[-1]) if len(self.images.shape) == self.spatial_dims + 2 else 1

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width; of volumes depth, height and width."""
        return tuple(int(side) for side in self.images.shape[1 : self.spatial_dims + 1])

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.labels != UNLABELLED).any())

    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) labelled images of each class."""
        return np.bincount(self.labels[self.labels != UNLABELLED], minlength=self.num_classes)

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
        return _banded(known[name], name, width) if width else known[name]

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
        )

    def _scaled(self, rows: Any, lost: dict[int, str] | None = None) -> Tensor:
        if isinstance(self.images, ImageFiles) and lost is not None:
            images, reasons = self.images.read(rows, (self.low, self.high))
            lost |= reasons
        elif isinstance(self.images, ImageFiles):
            images = self.images.scaled(rows, (self.low, self.high))
        else:
            raw = torch.from_numpy(np.ascontiguousarray(self.images[rows])).float()
            raw = raw.movedim(-1, 1) if raw.dim() == self.spatial_dims + 2 else raw.unsqueeze(1)
            images = (raw - self.low) / (self.high - self.low)
        if self.transform is not None:
            pairs = zip(images, self.ids[rows], strict=True)
            images = torch.stack([self.transform(image, str(name)) for image, name in pairs])
        return images


def _banded(values: npt.NDArray[Any], name: str, width: str) -> Strings:
    if not width.isdecimal() or int(width) < 1:
        raise InputError(
            f"{name}/{width} is no column in bands: write a whole number behind the slash, "
            f"{name}/20"
        )
    step, bands = int(width), []
    for value in values.tolist():
        try:
            unknown = str(value) in ("", *MISSING)
            start = None if unknown else int(_years(str(value)) // step * step)
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"the column {name!r} holds {value!r}, which is no number to cut into bands of "
                f"{width}"
            ) from error
        bands.append("" if start is None else f"{start}-{start + step - 1}")
    return np.array(bands)


def _years(value: str) -> float:
    """A number, or an age as DICOM writes it, in years: 058Y, 006M, 012W, 003D."""
    age = re.fullmatch(r"(\d{1,3})([DWMY])", value.strip())
    return int(age[1]) / _IN_A_YEAR[age[2]] if age else float(value)


def check_training_set(images: ImageSet) -> None:
    """Refuse a set that no classifier can be trained on.

    Raises:
        InputError: no images, fewer than two classes, or values that are not finite.
    """
    if not len(images):
        raise InputError(
            "the source has no training images: check data.source and the file's split column"
        )
    present = [
        name for name, count in zip(images.class_names, images.counts(), strict=True) if count
    ]
    if not present:
        raise InputError(
            "no training image has a label: training needs a folder for each class, or a table's "
            "column label"
        )
    if len(present) < 2:
        raise InputError(
            f"the training images show 1 class ({present[0]}): training needs at least two"
        )
    if np.issubdtype(images.images.dtype, np.floating):
        broken = np.flatnonzero(_broken(images))
        if len(broken):
            raise InputError(
                f"{len(broken)} training images hold NaN or infinite values (the first has id "
                f"{images.ids[broken[0]]}): "
                "remove or repair them before training"
            )


def _broken(images: ImageSet) -> npt.NDArray[np.bool_]:
    """(N,) whether an image has a pixel that is NaN or infinite."""
    known = images.images.broken() if isinstance(images.images, ImageFiles) else None
    if known is not None:
        return known
    shown, size = images.transformed(None), 64
    chunks = [
        np.arange(start, min(start + size, len(images))) for start in range(0, len(images), size)
    ]
    finite = [torch.isfinite(shown.batch(rows)["image"]).flatten(1).all(1) for rows in chunks]
    return ~torch.cat(finite).numpy()
