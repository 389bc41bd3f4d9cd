"""Masks over images: outlines of what was predicted, and of what is true."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image
from torch import Tensor

from holdfast.callbacks.maskfiles import COLORS
from holdfast.datamodules.placing import Place

#: Pixels of a picture's longer side at least: outlines of smaller ones cannot be seen.
_SIDE = 160
_TRUTH = (255, 255, 255)


def read_mask(path: Path, place: Place) -> npt.NDArray[np.int64]:
    """A mask that was written, as classes (*size) of the network's image."""
    if path.name.endswith(".png"):
        with Image.open(path) as picture:
            found = np.asarray(picture)
    else:
        image: Any = nibabel.load(path)
        voxels = np.asanyarray(image.dataobj).reshape(*image.shape, *[1] * (3 - image.ndim))
        found = apply_orientation(voxels, io_orientation(image.affine)).transpose(2, 1, 0)
        found = found[0] if len(place.sides) == 2 else found
    return np.asarray(place.mask(found)).astype(np.int64)


def overlay(image: Tensor, predicted: npt.NDArray[np.int64], truth: Tensor | None) -> Tensor:
    """An image with outlines: of each predicted class in its colour, of what is true in white.

    Args:
        image: (channels, *spatial) in 0..1; of a volume the slice with most foreground is shown.
        predicted: (*spatial) classes.
        truth: (*spatial) classes, negative where not known; None: it is not.

    Returns:
        (3, H, W) in 0..1, small ones enlarged.
    """
    if image.dim() == 4:
        shown = predicted > 0 if truth is None else (predicted > 0) | (truth.numpy() > 0)
        plane = int(shown.reshape(len(shown), -1).sum(1).argmax())
        image, predicted = image[:, plane], predicted[plane]
        truth = None if truth is None else truth[plane]
    picture = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    factor = max(1, -(-_SIDE // max(picture.shape[1:])))
    picture = F.interpolate(picture[None].nan_to_num().clamp(0, 1), scale_factor=factor)[0].clone()
    said = np.kron(predicted, np.ones((factor, factor), np.int64))
    if truth is not None:
        known = np.kron(truth.numpy(), np.ones((factor, factor), np.int64))
        _drawn(picture, _outline(known > 0), _TRUTH)
    for label in range(1, int(said.max(initial=0)) + 1):
        _drawn(picture, _outline(said == label), COLORS[(label - 1) % len(COLORS)])
    return picture


def _drawn(picture: Tensor, where: npt.NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    picture[:, torch.from_numpy(where)] = torch.tensor(color)[:, None] / 255


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(H, W) the pixels of a mask with a neighbour outside of it."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)
