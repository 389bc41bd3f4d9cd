"""DICOM files, and folders of one series, through pydicom."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.uid import SegmentationStorage

from holdfast.datamodules.formats.dataset import Frame, frames, is_dicom, opened
from holdfast.datamodules.formats.decoded import Array, Decoded
from holdfast.datamodules.formats.geometry import (
    axes_of,
    plane_affine,
    plane_spacing,
    positions_of,
    spacing_of,
    volume_of,
)
from holdfast.datamodules.formats.headers import Header, frames_of
from holdfast.datamodules.formats.rescaling import displayed, raw, unit_of
from holdfast.datamodules.formats.scans import scan_of
from holdfast.datamodules.formats.segmentation import read_segmentation
from holdfast.datamodules.formats.series import members, numbered, slices

__all__ = ["is_dicom", "read_dicom"]

_SEGMENTATIONS = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7")  # the latter of label maps

_UNPLACED = "slices without positions stay as they are stored, in the order of InstanceNumber"
_FRAMES = "frames without positions are the planes of a volume, in their order"


def read_dicom(path: Path) -> Decoded:
    """A file, or all slices of a series in a folder, in raw values.

    A file of one frame is a plane as it is displayed, also alone in its folder. Slices, and frames
    with positions, are a volume turned to RAS like a NIfTI file's; frames without are one as they
    are stored.

    Raises:
        Unreadable: it holds no image, or none that is sure to be read rightly.
    """
    if path.is_dir():
        paths = members(path)
        if len(paths) > 1:
            return _decoded(slices(paths))
        path = paths[0]
    dataset = opened(path)
    if dataset.get("SOPClassUID") in _SEGMENTATIONS:
        return read_segmentation(dataset, path.name)
    return _decoded(frames(dataset, path.name))


def _decoded(planes: list[Frame]) -> Decoded:
    headers = [plane.header for plane in planes]
    values, span = raw(planes)
    how = _arrangement(headers, values[0].shape[:2])
    window, display = displayed(planes, values, how.arrange)
    return Decoded(
        how.arrange(values),
        span,
        window=window,
        spacing=how.spacing,
        affine=how.affine,
        inverted=headers[0].text("PhotometricInterpretation") == "MONOCHROME1",
        display=display,
        note=how.note,
        kind=f"DICOM {headers[0].text('Modality')}".strip(),
        unit=unit_of(headers[0]),
        turned=how.turned,
        scan=scan_of(list({id(each.dataset): each.dataset for each in headers}.values())),
    )


class _Arrangement(NamedTuple):
    """How planes become an image, and what ``Decoded`` then says of it."""

    arrange: Callable[[Sequence[Array]], Array]
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    note: str = ""
    turned: bool = False


def _arrangement(headers: list[Header], sides: tuple[int, ...]) -> _Arrangement:
    if len(headers) == 1:
        first = headers[0]
        return _Arrangement(lambda planes: planes[0], plane_spacing(first), plane_affine(first))
    positions = _positions(headers)
    volume = None if positions is None else volume_of(positions, headers)
    if volume is not None:
        affine = volume.turned(sides) if volume.measured else None
        spacing = None if affine is None else spacing_of(affine)
        return _Arrangement(volume.stacked, spacing, affine, volume.note, volume.other)
    series = frames_of(headers[0].dataset) == 1
    order = numbered(headers) if series else range(len(headers))
    return _Arrangement(
        lambda planes: np.stack([planes[place] for place in order]),
        note=_UNPLACED if series else _FRAMES,
    )


def _positions(headers: list[Header]) -> Array | None:
    """(N, 3) positions of slices or frames, LPS; None where they have none of their own."""
    first = headers[0]
    if frames_of(first.dataset) == 1:
        return positions_of(headers)
    offsets = first.numbers("GridFrameOffsetVector", len(headers))  # of a radiotherapy dose
    if offsets:
        axes, origin = axes_of(headers[:1]), positions_of(headers[:1])
        if axes is None or origin is None:
            return None
        return origin + np.outer(np.asarray(offsets) - offsets[0], axes[0])
    positions = positions_of(headers) if first.in_groups("ImagePositionPatient") else None
    if positions is None or np.array_equal(positions.min(axis=0), positions.max(axis=0)):
        return None  # a film of one plane
    return positions
