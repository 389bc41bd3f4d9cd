"""NIfTI files, through nibabel."""

from pathlib import Path

import numpy as np
from monai.data import NibabelReader

from datamodules.formats.decoded import Decoded, Unreadable, native, reader_of, span_of


def read_nifti(path: Path) -> Decoded:
    """A plane or volume, turned to RAS, its slowest axis first."""
    # Files are turned to one orientation: sites store theirs differently, and a network would take that for a shift.
    reader = reader_of(NibabelReader, as_closest_canonical=True)
    pixels, about = reader.get_data(reader.read(path))
    pixels = native(pixels)
    if pixels.ndim not in (2, 3, 4):
        raise Unreadable(
            f"has {pixels.ndim} axes: expected a plane, a volume, or a volume with channels"
        )
    channels = pixels if pixels.ndim == 4 else pixels[..., None]
    if channels.ndim == 4 and channels.shape[2] == 1:
        channels = channels[:, :, 0]
    spatial = channels.ndim - 1  # NIfTI counts axes from left to right, we from the slowest
    turned = np.ascontiguousarray(channels.transpose(*reversed(range(spatial)), spatial))
    sides = np.linalg.norm(np.asarray(about["affine"])[:3, :3], axis=0)[:spatial][::-1]
    return Decoded(turned, span_of(turned.dtype), spacing=tuple(sides.tolist()))
