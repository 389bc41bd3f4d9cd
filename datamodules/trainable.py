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
    images.target.check_teaches()
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
