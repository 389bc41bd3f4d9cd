"""Which image sets something can be learned from."""

import numpy as np
import numpy.typing as npt
import torch

from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.images import ImageSet
from holdfast.tta.errors import InputError


def check_training_set(images: ImageSet) -> None:
    """Refuse a set that nothing can be learned from.

    Raises:
        InputError: no images, fewer than two classes, no finding, no mask, or values that are not
            finite.
    """
    if not len(images):
        raise InputError(
            "the source has no training images: check data.source and the file's split column"
        )
    _CHECKS[images.task](images)
    if np.issubdtype(images.images.dtype, np.floating):
        broken = np.flatnonzero(_broken(images))
        if len(broken):
            raise InputError(
                f"{len(broken)} training images hold NaN or infinite values (the first has id "
                f"{images.ids[broken[0]]}): "
                "remove or repair them before training"
            )


def _check_classes(images: ImageSet) -> None:
    present = _present(images)
    if not present:
        raise InputError(
            "no training image has a label: training needs a folder for each class, or a table's "
            "column label"
        )
    if len(present) < 2:
        raise InputError(
            f"the training images show 1 class ({present[0]}): training needs at least two"
        )


def _check_masks(images: ImageSet) -> None:
    if not images.labelled:
        raise InputError(
            "no training image has a mask: training needs one beside each image, or a table's "
            "column mask"
        )
    present = _present(images)
    if len(present) < 2:
        raise InputError(
            f"the training masks show 1 class ({present[0]}): training needs at least two"
        )


def _check_findings(images: ImageSet) -> None:
    if images.findings is None or not images.labelled:
        raise InputError(
            "no training image has a finding that is known, present or absent: training needs a "
            "column for each finding, or a list column"
        )
    both = [(images.findings == value).any(0) for value in (0, 1)]
    if not (both[0] & both[1]).any():
        raise InputError(
            "no finding is present in some training images and absent in others: training needs "
            "at least one"
        )


_CHECKS = {
    "single": _check_classes,
    "segmentation": _check_masks,
    "multilabel": _check_findings,
}


def _present(images: ImageSet) -> list[str]:
    """Names of the classes that occur."""
    counts = zip(images.class_names, images.counts(), strict=True)
    return [name for name, count in counts if count]


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
