"""Where the planes of a DICOM volume lie: their order, their orientation, and a mask's place in an
image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from holdfast.datamodules.formats.decoded import Array, Decoded, Unreadable
from holdfast.datamodules.formats.headers import Header
from holdfast.datamodules.formats.scans import check_scan

#: Directions whose cosines differ by more are two.
_DIRECTION = 1e-3

#: Share of a pixel's size by which it may vary among the planes of a volume: headers are rounded to
#: four decimals or more, and over 512 pixels it comes to half a pixel.
_SIZE = 1e-3

#: Share of the distance of slices by which it may vary; positions are rounded when they are
#: written.
_UNEVEN = 0.1

#: Share of the distance of slices below which two are at one position, and mm that are none.
_SAME, _NONE = 0.01, 1e-5

#: Part of a voxel by which a mask may lie beside its image.
_OFF = 0.1

#: Cosine between a plane and the line through its neighbours from which they are tilted: a degree.
_TILT = 0.0175
_TILTED = "tilted slices are stacked as if they were not"

#: Orientation of planes that lie on each other upwards, rows towards the front, columns to the
#: right.
_STORED_RAS = [[2, 1], [1, 1], [0, 1]]

#: Part of a voxel, a voxel, by which the axes of a mask may run off its image's.
_TURNED = 0.01

#: The kind of file that holds marked planes only, and is to be put in its place.
SEGMENTATION = "DICOM SEG"

#: DICOM counts towards left and back, NIfTI towards right and front.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Volume(NamedTuple):
    """How planes become a volume.

    Attributes:
        order: of the planes.
        affine: (4, 4), from (plane, row, column) to RAS coordinates in mm.
        measured: whether the file tells the distances of pixels, too.
    """

    order: list[int]
    affine: Array
    measured: bool

    @property
    def other(self) -> bool:
        """Whether its planes are stored in another orientation than RAS."""
        return not np.array_equal(io_orientation(self.affine), _STORED_RAS)

    @property
    def note(self) -> str:
        """What is worth saying: planes that are pushed along themselves, as in a tilted gantry's
        CT.
        """
        sides = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return _TILTED if np.abs(sides[:, 0] @ sides[:, 1:]).max() > _TILT else ""

    def stacked(self, planes: Sequence[Array]) -> Array:
        """Planes (H, W, channels) as (D, H, W, channels), turned to RAS, as a NIfTI file's are."""
        stack = np.stack([planes[place] for place in self.order])
        turned = apply_orientation(stack, io_orientation(self.affine))
        return np.ascontiguousarray(turned.transpose(2, 1, 0, 3))

    def turned(self, sides: tuple[int, ...]) -> Array:
        """(4, 4) affine of the volume when it is turned; sides: (H, W) of a plane."""
        shape = (len(self.order), *sides)
        return self.affine @ inv_ornt_aff(io_orientation(self.affine), shape)


def spacing_of(affine: Array) -> tuple[float, ...]:
    """mm between voxels along (D, H, W)."""
    return tuple(np.linalg.norm(affine[:3, :3], axis=0)[::-1].tolist())


def plane_spacing(header: Header) -> tuple[float, float] | None:
    """mm between rows and between columns; at the detector where the file tells no other."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        values = header.numbers(name, 2)
        if values:
            if min(values) <= 0:
                raise Unreadable(f"has a {name} of {values[0]:g} and {values[1]:g} mm: correct it")
            return values[0], values[1]
    return None


def _check_spacing(headers: Sequence[Header]) -> None:
    """Refuse planes whose pixels are of several sizes, for a volume has one."""
    found = [plane_spacing(header) for header in headers]
    for one in found[1:]:
        alike = one is not None and found[0] is not None and np.allclose(one, found[0], rtol=_SIZE)
        if one != found[0] and not alike:
            told = " and ".join(
                "none" if each is None else f"{each[0]:g}x{each[1]:g}" for each in (found[0], one)
            )
            raise Unreadable(f"has slices of several PixelSpacing, {told} mm: correct it")


def positions_of(headers: Sequence[Header]) -> Array | None:
    """(N, 3) positions of planes in mm, LPS; None where none has one.

    Raises:
        Unreadable: some have one.
    """
    found = _of_all(headers, "ImagePositionPatient", 3)
    return None if found is None else np.array(found)


def _of_all(headers: Sequence[Header], name: str, count: int) -> list[list[float]] | None:
    """An attribute of all planes; None where none has it."""
    found = [header.numbers(name, count) for header in headers]
    missing = sum(not values for values in found)
    if 0 < missing < len(found):
        raise Unreadable(f"has {missing} of {len(found)} slices without {name}: correct it")
    return None if missing else found


def axes_of(headers: Sequence[Header]) -> Array | None:
    """(3, 3) unit vectors along planes, rows and columns of a volume, LPS; None where none is told.

    Raises:
        Unreadable: the planes differ, or are none.
    """
    found = _of_all(headers, "ImageOrientationPatient", 6)
    if found is None:
        return None
    if len(found) > 1 and (np.ptp(np.asarray(found), axis=0) > _DIRECTION).any():
        raise Unreadable("has slices of several orientations: give each a folder of its own")
    row, column = found[0][:3], found[0][3:]  # plain numbers: NumPy is slow with three of them
    cosine = sum(one * other for one, other in zip(row, column, strict=True))
    lengths = math.hypot(*row), math.hypot(*column)
    if max(abs(cosine), abs(lengths[0] - 1), abs(lengths[1] - 1)) > _OFF:
        raise Unreadable(
            "has an ImageOrientationPatient that is no pair of right-angled directions"
        )
    normal = [
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    ]
    return np.array([normal, column, row])


def distances(positions: Array, axes: Array) -> tuple[Array, list[int]]:
    """(N,) places of planes along their normal in mm, ascending, and the order that makes them
    so.
    """
    along = positions @ axes[0]
    order = np.argsort(along, kind="stable")
    return along[order], order.tolist()


def volume_of(positions: Array, headers: Sequence[Header]) -> Volume | None:
    """How two or more planes become a volume; None where they do not say how they are turned.

    Raises:
        Unreadable: planes are missing, doubled, or of several orientations.
    """
    axes = axes_of(headers)
    if axes is None:
        return None
    along, order = distances(positions, axes)
    steps = np.diff(along)
    usual = float(np.median(steps))
    doubled = int((steps <= max(_SAME * usual, _NONE)).sum())
    if doubled:
        raise Unreadable(
            f"has {doubled} slice(s) at the position of another, as of several phases: "
            "give each phase a folder or file of its own"
        )
    if np.ptp(steps) > 2 * _UNEVEN * usual:
        raise Unreadable(
            f"has slices {steps.min():.4g} to {steps.max():.4g} mm apart, so that some are "
            "missing: "
            "complete it, or write it evenly as NIfTI"
        )
    _check_spacing(headers)
    first, last = positions[order[0]], positions[order[-1]]
    return grid(axes, first, (last - first) / len(steps), headers[0], order)


def grid(axes: Array, first: Array, step: Array, header: Header, order: list[int]) -> Volume:
    """Planes at equal distances.

    Args:
        axes: as ``axes_of``.
        first: (3,) position of the first plane, LPS.
        step: (3,) from one to the next.
        header: of one of them, for the distances within.
        order: of the planes.
    """
    spacing = plane_spacing(header)
    rows, columns = spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3] = np.stack([step, axes[1] * rows, axes[2] * columns, first], axis=1)
    return Volume(order, _LPS_TO_RAS @ affine, spacing is not None)


def plane_affine(header: Header) -> Array | None:
    """(4, 4), from (column, row, 0) of one plane to RAS coordinates in mm; None where it is not
    sure.

    It is only needed for a mask, so that what is wrong with it is no reason to refuse the plane.
    """
    try:
        axes, position = axes_of([header]), positions_of([header])
        if axes is None or position is None or plane_spacing(header) is None:
            return None
    except Unreadable:
        return None
    return grid(axes, position[0], axes[0], header, [0]).affine[:, [2, 1, 0, 3]]


def placed(mask: Decoded, image: Decoded) -> Decoded:
    """A segmentation on its image's grid, where that tells its place; other masks as they are.

    Raises:
        Unreadable: it lies beside the image, or between its voxels, or is of another scan.
    """
    sides = image.pixels.shape[:-1]
    if mask.kind == SEGMENTATION:
        check_scan(mask.scan, image.scan)
    if mask.kind != SEGMENTATION or mask.affine is None or image.affine is None:
        return mask
    voxels = mask.pixels.reshape(-1, *mask.pixels.shape[-3:]).transpose(2, 1, 0, 3)  # x, y, z
    shift = np.linalg.inv(image.affine) @ mask.affine
    axes = io_orientation(shift)
    shift = shift @ inv_ornt_aff(axes, voxels.shape[:3])
    voxels = apply_orientation(voxels, axes)
    scale = np.diag(shift)[:3]
    if np.abs(shift[:3, :3] - np.diag(scale)).max() > _TURNED:
        raise Unreadable("has a mask that is turned against it")
    lengths = (*sides[::-1], 1)[:3]
    marked = (voxels != 0).any(axis=3)
    kept, targets = [], []
    for axis, length in enumerate(lengths):
        used = np.flatnonzero(marked.any(axis=tuple({0, 1, 2} - {axis})))
        exact = scale[axis] * used + shift[axis, 3]
        if axis == len(sides):  # of a plane's mask, only what lies in it
            used, exact = used[np.abs(exact) < _OFF], exact[np.abs(exact) < _OFF]
        kept.append(used)
        targets.append(_places(exact, length))
    result = np.zeros((*lengths, voxels.shape[3]), voxels.dtype)
    result[np.ix_(*targets)] = voxels[np.ix_(*kept)]
    return mask._replace(
        pixels=result.transpose(2, 1, 0, 3).reshape(*sides, -1),
        affine=image.affine,
        spacing=image.spacing,
    )


def _places(exact: Array, length: int) -> Array:
    """Whole numbers of voxels along an axis of an image of so many."""
    places = np.round(exact).astype(int)
    if (np.abs(exact - places) > _OFF).any():
        raise Unreadable("has a mask whose voxels lie between its own")
    if places.size and not 0 <= places.min() <= places.max() < length:
        raise Unreadable("has a mask that reaches beyond it")
    return places
