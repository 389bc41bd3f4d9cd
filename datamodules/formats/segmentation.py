"""DICOM segmentations: which voxels belong to which segment."""

import numpy as np
from pydicom import Dataset

from holdfast.datamodules.formats.dataset import Frame, frames
from holdfast.datamodules.formats.decoded import Array, Decoded, Unreadable
from holdfast.datamodules.formats.geometry import (
    SEGMENTATION,
    axes_of,
    distances,
    grid,
    positions_of,
    spacing_of,
)
from holdfast.datamodules.formats.memory import refuse_beyond_memory
from holdfast.datamodules.formats.scans import referred_to

#: Share of a segment from which a voxel of a fractional segmentation belongs to it.
_HALF = 0.5

#: Part of the distance of slices by which a plane may lie beside the grid of the others.
_OFF = 0.1

_OVERLAP = "where segments overlap the one of the higher number holds"


def read_segmentation(dataset: Dataset, name: str) -> Decoded:
    """The numbers of segments, (D, H, W, 1), 0 in none; planes between the marked ones are empty.

    The volume reaches from the first marked plane to the last; ``geometry.placed`` puts it into its
    image.

    Raises:
        Unreadable: its planes have no positions, or lie on no grid.
    """
    planes = frames(dataset, name, colours=False)
    headers = [plane.header for plane in planes]
    positions, axes = positions_of(headers), axes_of(headers)
    if positions is None or axes is None:
        raise Unreadable("is a segmentation without positions in the patient: write it as NIfTI")
    along, order = distances(positions, axes)
    step = _step(planes[0], along)
    places = (along - along[0]) / step
    if (np.abs(places - np.round(places)) > _OFF).any():
        raise Unreadable("is a segmentation whose planes are unevenly spaced: write it as NIfTI")
    levels = np.round(places).astype(np.int64)
    volume, overlap = _numbers(dataset, [planes[place] for place in order], levels)
    where = grid(axes, positions[order[0]], axes[0] * step, headers[0], list(range(len(volume))))
    affine = where.turned(volume.shape[1:3])
    return Decoded(
        where.stacked(list(volume)),
        None,
        spacing=spacing_of(affine) if where.measured else None,
        affine=affine,
        kind=SEGMENTATION,
        turned=where.other,
        note=_OVERLAP if overlap else "",
        scan=referred_to(dataset),
    )


def _step(plane: Frame, along: Array) -> float:
    """mm between planes: as told, but no more than the least that there is."""
    steps = np.diff(np.unique(np.round(along, 3))).tolist()
    told = abs(plane.header.number("SpacingBetweenSlices") or 0)
    if not told and not steps:
        return abs(plane.header.number("SliceThickness") or 0) or 1.0
    return float(min([told, *steps] if told else steps))


def _numbers(dataset: Dataset, planes: list[Frame], levels: Array) -> tuple[Array, bool]:
    """(D, H, W, 1) numbers of segments, and whether some overlap."""
    kind = str(dataset.get("SegmentationType", "")).upper()
    refuse_beyond_memory((levels[-1] + 1.0) * planes[0].pixels.size * np.uint16().itemsize)
    result = np.zeros((levels[-1] + 1, *planes[0].pixels.shape), np.uint16)
    overlap = False
    for plane, level in zip(planes, levels, strict=True):
        if kind == "LABELMAP":
            numbers = plane.pixels.astype(np.uint16)
        else:
            number = plane.header.number("ReferencedSegmentNumber")
            if number is None:
                raise Unreadable("is a segmentation that does not name a plane's segment")
            numbers = _marked(dataset, plane.pixels, kind) * np.uint16(number)
        overlap |= bool(((result[level] != 0) & (numbers != 0) & (result[level] != numbers)).any())
        result[level] = np.maximum(result[level], numbers)
    return result, overlap


def _marked(dataset: Dataset, pixels: Array, kind: str) -> Array:
    if kind != "FRACTIONAL":
        return pixels != 0
    return pixels >= _HALF * float(dataset.get("MaximumFractionalValue") or np.iinfo(np.uint8).max)
