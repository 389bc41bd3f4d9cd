"""Options that data sets share."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.datamodules.maskvalues import values_of
from holdfast.datamodules.reading import Reading
from holdfast.tta.errors import InputError
from holdfast.tta.expected import likeliest
from holdfast.tta.options import option
from holdfast.tta.tasks import TASKS

#: ``data.group`` where nothing is said.
AUTO = "auto"


@dataclass
class DataConfig:
    """What can be asked of any data set."""

    classes: Any = option(
        None,
        "the source's name for each of the target's labels, {theirs: ours}; null leaves images of "
        "a label unlabelled",
    )
    subgroups: list[str] = option(
        [],
        "columns whose groups get metrics of their own, e.g. [site,sex,age/20]: age in bands of 20",
    )
    range: list[float] | None = option(
        None,
        "[LOW,HIGH] raw values that become 0 and 1 where images do not say what they span, as "
        "signed "
        "and floating-point ones; in arrays all. data.window holds for all files",
    )
    aggregate: Literal["image", "group"] = option(
        "image", "what is scored: each image, or each group by its mean probabilities"
    )
    channels: int | None = option(
        None, "1 makes colour grey, 3 repeats grey; null: as they are, and all must have the same"
    )

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise InputError(f"data.channels={self.channels} must be 1, 3 or null")
        if self.classes is None:
            return
        if not isinstance(self.classes, Mapping):
            raise InputError(
                f"data.classes={self.classes} must map the target's labels to the source's "
                "classes, "
                "data.classes={theirs: ours}"
            )
        self.classes = {
            str(theirs): None if ours is None else str(ours)
            for theirs, ours in self.classes.items()
        }

    def given_range(self) -> tuple[float, float] | None:
        """``range`` as numbers.

        Raises:
            InputError: it is not LOW below HIGH.
        """
        return None if self.range is None else _ends("range", self.range)


@dataclass
class ColumnsConfig(DataConfig):
    """What can be asked of a data set with columns."""

    group: str | None = option(
        AUTO,
        "column that names each image's patient or slide; auto: group, and a likely other one in "
        "several splits is refused; null: each image is its own",
    )
    missing: list[str] | None = option(
        None,
        "labels that stand for none besides empty ones, -1, nan, NA, null and the like; [] takes "
        "all for classes",
    )


@dataclass
class TargetConfig(ColumnsConfig):
    """What can be asked of a data set that may have masks or findings."""

    task: str = option(
        AUTO,
        "what is known of an image: single, one class; segmentation, a mask; multilabel, findings; "
        "auto: what the data has",
    )
    labels: Any = option(
        None,
        "what the values of masks mean, {VALUE: CLASS}: null is background, ignore does not count; "
        "null: 0 and 255, or 0 to 63, as they are",
    )
    findings: list[str] | None = option(
        None,
        "columns of findings, or those to keep of lists in the column label (a|b); of multilabel",
    )
    uncertain: Literal["ignore", "zeros", "ones"] = option(
        "ignore", "what a finding of -1 is: unknown, absent or present"
    )
    unmentioned: Literal["ignore", "zeros"] = option(
        "ignore", "what a finding is that a column leaves empty: unknown, or absent"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_task(self.task, AUTO)
        again = [name for name, count in Counter(self.findings or ()).items() if count > 1]
        if again:
            raise InputError(f"data.findings names {again[0]} twice: once will do")
        if self.labels is None:
            return
        if not isinstance(self.labels, Mapping):
            raise InputError(
                f"data.labels={self.labels} must map the values of masks to classes, "
                "data.labels={0: background, 255: nucleus}"
            )
        self.labels = {str(value): name for value, name in self.labels.items()}
        values_of(self.labels)


@dataclass
class FilesConfig(TargetConfig):
    """How image files are read."""

    size: int | list[int] | None = option(
        None, "sides of the images, one or [H,W] or [D,H,W]; null: all must have the same"
    )
    fit: Literal["stretch", "cover", "pad", "crop"] = option(
        "stretch", "to data.size by: stretch, cover, pad, or crop unscaled"
    )
    window: Any = option(
        None,
        "[LOW,HIGH] raw values, file (DICOM's own), percentile, or null: the span of the file's "
        "type",
    )
    spacing: float | None = option(
        None,
        "mm to which NIfTI and DICOM files are resampled along each axis; null: as they are stored",
    )
    around_roi: int | None = option(
        None,
        "cut each image down to its roi (a table's column roi) and so many pixels around it; "
        "null: whole images",
    )
    around_mask: int | None = option(None, "the former name of data.around_roi; leave it null")
    cache: float = option(2.0, "GiB of memory for decoded images of each split; 0: none")
    check: bool = option(True, "decode every file once at the start, and list those that cannot be")
    on_error: Literal["stop", "skip"] = option(
        "stop", "unreadable files: stop, or skip them and list them in predictions.csv"
    )
    shares: list[float] | None = option(
        None, "[train,val,test] shares, cut between groups, where the data has no splits"
    )
    seed: int = option(0, "seed of data.shares")

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = [self.size] if isinstance(self.size, int) else self.size or [1]
        if min(sides) < 1:
            raise InputError(f"data.size={self.size} must be at least 1")
        if self.spacing is not None and self.spacing <= 0:
            raise InputError(f"data.spacing={self.spacing} must be above 0")
        if self.around_mask is not None:
            raise InputError(
                "data.around_mask is called data.around_roi, and a table's column that crops roi: "
                "masks are what segmentation learns"
            )
        if self.around_roi is not None and self.around_roi < 0:
            raise InputError("data.around_roi must be at least 0, or null for whole images")
        if self.cache < 0:
            raise InputError("data.cache must not be negative")
        if self.on_error == "skip" and not self.check:
            raise InputError(
                "data.on_error=skip must know the unreadable files before it starts: leave "
                "data.check=true"
            )
        check_shares(self.shares)
        self.reading()

    def reading(self) -> Reading:
        """The options of decoding.

        Raises:
            InputError: ``window`` is none of the things it can be.
        """
        window = self.window
        if isinstance(window, list):
            window = _ends("window", window)
        elif window not in (None, "file", "percentile"):
            raise InputError(f"data.window={window} must be [LOW,HIGH], file, percentile or null")
        size = tuple(self.size) if isinstance(self.size, list) else self.size
        return Reading(
            size,
            self.fit,
            self.channels,
            window,
            self.spacing,
            self.around_roi,
            self.given_range(),
        )


def check_task(task: str, *more: str, asking: Collection[str] = ()) -> None:
    """Refuse a ``data.task`` that is none.

    Args:
        task: as given.
        *more: other words that are taken.
        asking: keys of the targets that the data can have; none: any.

    Raises:
        InputError: there is no such task, or the data cannot have what it asks for.
    """
    if task in more or (task in TASKS and (not asking or TASKS[task].target in asking)):
        return
    names = [name for name in TASKS if not asking or TASKS[name].target in asking]
    *names, last = [*more, *names]
    likely = likeliest(task, [*names, last])
    meant = "" if likely is None else f" (did you mean {likely}?)"
    raise InputError(f"data.task={task}: expected one of {', '.join(names)} or {last}{meant}")


def check_shares(shares: list[float] | None) -> None:
    """Refuse ``data.shares`` that are none.

    Raises:
        InputError: they are not three above 0 that sum to 1.
    """
    if shares is not None and (len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
        raise InputError(f"data.shares={shares} must be three shares above 0 that sum to 1")


def _ends(option: str, values: list[Any]) -> tuple[float, float]:
    """The two numbers of [LOW,HIGH]."""
    numbers = all(isinstance(end, (int, float)) and math.isfinite(end) for end in values)
    if len(values) != 2 or not numbers or values[0] >= values[1]:
        raise InputError(f"data.{option}={values} must be [LOW,HIGH], LOW below HIGH")
    return float(values[0]), float(values[1])
