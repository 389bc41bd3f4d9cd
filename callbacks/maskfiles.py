"""Masks as files: PNG of pictures; of volumes NIfTI, in the space of the file they came from."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from PIL import Image
from torch import Tensor

from holdfast.datamodules.placing import Place

#: Colours of the classes of a PNG: background black, then as in the report, again and again.
COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0))
#: Endings of images, which those of their masks take the place of.
_ENDINGS = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".bmp")
#: Classes beyond which a byte does not hold their numbers.
_BYTE = 256
#: Hexadecimal digits of the short hash of a file.
_DIGITS = 16


def in_file_space(probabilities: Tensor, place: Place) -> npt.NDArray[np.int16]:
    """The likeliest class of each pixel of the file that an image came from.

    Args:
        probabilities: (C, *size) of the image; between its pixels they are interpolated.
        place: where the image lies in its file.

    Returns:
        (*sides); 0 where the image shows nothing of the file.
    """
    if place != Place.whole(place.sides, place.spacing, place.affine, place.turned):
        probabilities = place.back(probabilities.float(), linear=True)
    return np.asarray(probabilities.argmax(0).cpu().numpy().astype(np.int16))


def save_mask(folder: Path, name: str, mask: npt.NDArray[np.int16], place: Place) -> Path:
    """Write a mask: NIfTI where it is a volume, or its image one, with the image's affine; else PNG
    whose values are the classes, and whose palette shows them.

    Args:
        folder: where.
        name: of the image; its folders become part of the file's name.
        mask: (*sides) classes, volumes turned to RAS.
        place: where the image lies in its file.
    """
    stem = name.replace("/", "__").replace("\\", "__")
    for ending in _ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    nifti = place.path is not None and place.path.name.lower().endswith((".nii", ".nii.gz"))
    if mask.ndim == 3 or nifti:
        path = folder / f"{stem}.nii.gz"
        nibabel.save(_as_nifti(mask, place, nifti), path)
        return path
    path = folder / f"{stem}.png"
    _as_picture(mask).save(path)
    return path


def hash_of(path: Path) -> str:
    """The first digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


def _as_nifti(mask: npt.NDArray[np.int16], place: Place, same_kind: bool) -> Any:
    """A mask as NIfTI: with the affine and the orientation of the image's file, where it is one."""
    planes = mask if mask.ndim == 3 else mask[None]
    voxels = planes.transpose(2, 1, 0)  # of files the fastest axis is the first
    voxels = voxels.astype(np.uint8) if mask.max(initial=0) < _BYTE else voxels
    if not same_kind or place.path is None:
        affine = np.eye(4) if place.affine is None else place.affine
        return nibabel.Nifti1Image(voxels, affine)
    source: Any = nibabel.load(place.path)
    back = ornt_transform(io_orientation(np.eye(4)), io_orientation(source.affine))
    voxels = apply_orientation(voxels, back).reshape(source.shape[:3])
    header = source.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return nibabel.Nifti1Image(voxels, source.affine, header)


def _as_picture(mask: npt.NDArray[np.int16]) -> Image.Image:
    """A mask as a picture with a palette; of very many classes in 16 bits."""
    if mask.max(initial=0) >= _BYTE:
        return Image.fromarray(mask.astype(np.uint16))
    picture = Image.fromarray(mask.astype(np.uint8)).convert("L")
    indexed = Image.frombytes("P", picture.size, picture.tobytes())
    shown = [0, 0, 0]
    for label in range(_BYTE - 1):
        shown += COLORS[label % len(COLORS)]
    indexed.putpalette(shown)
    return indexed
