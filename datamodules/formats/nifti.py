"""NIfTI files, through nibabel."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from holdfast.datamodules.formats.decoded import Array, Decoded, Unreadable, native, span_of
from holdfast.datamodules.formats.memory import refuse_beyond_memory

#: Volumes of one file, without a unit of time, that may be channels: sequences of MR, say.
_CHANNELS = 8


def read_nifti(path: Path, frame: int | None = None) -> Decoded:
    """A plane or volume, turned to RAS, its slowest axis first.

    Args:
        path: of the file.
        frame: which volume of a time series, from 0; None: there is one.

    Raises:
        Unreadable: it is a time series, or nothing of that.
    """
    try:
        image: Any = nibabel.load(path)
    except ImageFileError as error:
        raise Unreadable("is no NIfTI file, or damaged: it does not begin as one") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        kind = type(image).__name__.removesuffix("Image")
        raise Unreadable(f"is {kind}, no plain NIfTI: save its volume as NIfTI")
    if frame is not None:
        image = _chosen(image, frame)
    refuse_beyond_memory(math.prod(image.shape) * max(4, image.get_data_dtype().itemsize))
    pixels = _channels_last(image, _values(image))
    # Sites store volumes in different orientations, and a network would take that for a shift.
    axes = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(axes, pixels.shape[:3])
    pixels = apply_orientation(pixels, axes)
    sides = voxel_sizes(affine)[::-1].tolist()
    pixels = np.ascontiguousarray(pixels.transpose(2, 1, 0, 3))  # the slowest axis first
    turned = not np.array_equal(affine, image.affine)
    if len(pixels) == 1:
        pixels, sides, affine = pixels[0], sides[1:], None
    return Decoded(
        pixels,
        span_of(pixels.dtype),
        spacing=tuple(sides),
        affine=affine,
        kind="NIfTI",
        turned=turned,
    )


def _chosen(image: Any, frame: int) -> Any:
    """One volume of a time series."""
    count = image.shape[3] if len(image.shape) == 4 else 1
    if frame >= count:
        raise Unreadable(f"has {count} volume(s), of which number {frame}, from 0, is none")
    return image.slicer[..., frame : frame + 1] if len(image.shape) == 4 else image


def _values(image: Any) -> Array:
    """The voxels, scaled as the header says; colours on a last axis."""
    dtype = image.get_data_dtype()
    if dtype.names is not None:
        colours = np.asanyarray(image.dataobj)
        if len(dtype.names) != 3:
            raise Unreadable("has transparent colours, RGBA: save it as RGB")
        return np.stack([colours[name] for name in dtype.names], axis=-1)
    if isinstance(image.dataobj, np.ndarray):  # one volume of several, scaled already
        chosen = native(image.dataobj)
        return chosen.astype(np.float32) if chosen.dtype == np.float64 else chosen
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    long = dtype.kind == "f" and dtype.itemsize > 4
    if long or (scaled and dtype.kind in "iu"):  # float32 is what a network gets
        return np.asarray(image.get_fdata(caching="unchanged", dtype=np.float32))
    return native(np.asanyarray(image.dataobj))


def _channels_last(image: Any, pixels: Array) -> Array:
    """(X, Y, Z, channels)."""
    shape = image.shape + (1,) * (3 - len(image.shape))
    more = [side for side in shape[3:] if side > 1]
    times = shape[3] if len(shape) > 3 else 1
    if times > 1 and (times > _CHANNELS or _counts_time(image.header)):
        raise Unreadable(
            f"is a time series of {times} volumes: write each to a file of its own (channels are "
            "saved as vectors, or without a unit of time)"
        )
    colours = pixels.ndim > len(image.shape)
    if len(more) > 1 or (more and colours):
        raise Unreadable(
            f"has {len(shape)} axes, {'x'.join(map(str, shape))}: expected a plane, a volume, or "
            "one with channels"
        )
    return pixels.reshape(*shape[:3], -1)


def _counts_time(header: Any) -> bool:
    """Whether the fourth axis has a unit of time and a step."""
    return header.get_xyzt_units()[1] in ("sec", "msec", "usec") and header["pixdim"][4] > 0
