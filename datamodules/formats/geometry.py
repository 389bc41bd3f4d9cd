"""Where the planes of a DICOM volume lie: their order, their orientation, and a mask's place in an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from datamodules.formats.decoded import Array, Decoded, Unreadable
from datamodules.formats.headers import Header

#: Directions whose cosines differ by more are two.
_DIRECTION = 1e-3

#: Share of the distance of slices by which it may vary; positions are rounded when they are written.
_UNEVEN = 0.1

#: Share of the distance of slices below which two are at one position.
_SAME = 0.01

#: Part of a voxel by which a mask may lie beside its image.
_OFF = 0.1

#: Cosine between a plane and the line through its neighbours from which they are tilted: a degree.
_TILT = 0.0175
_TILTED = "has tilted slices, which are stacked as if they were not"

#: Orientation of planes that lie on each other upwards, rows towards the front, columns to the right.
_STORED_RAS = [[2, 1], [1, 1], [0, 1]]

_LPS_TO_RAS = np.diag(
    [-1.0, -1.0, 1.0, 1.0]
)  # DICOM counts towards left and back, NIfTI towards right and front


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
        """What is worth saying: planes that are pushed along themselves, as in a tilted gantry's CT."""
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


def positions_of(headers: Sequence[Header]) -> Array | None:
    """(N, 3) positions of planes in mm, LPS; None where none has one.

    Raises:
        Unreadable: some have one.
    """
    found = [header.numbers("ImagePositionPatient", 3) for header in headers]
    missing = sum(not position for position in found)
    if missing == len(found):
        return None
    if missing:
        raise Unreadable(
            f"has {missing} of {len(found)} slices without ImagePositionPatient: correct it"
        )
    return np.asarray(found)


def axes_of(headers: Sequence[Header]) -> Array | None:
    """(3, 3) unit vectors along planes, rows and columns of a volume, LPS; None where none is told.

    Raises:
        Unreadable: the planes differ, or are none.
    """
    found = [header.numbers("ImageOrientationPatient", 6) for header in headers]
    if not all(found):
        return None
    cosines = np.asarray(found)
    if (np.ptp(cosines, axis=0) > _DIRECTION).any():
        raise Unreadable("has slices of several orientations: give each a folder of its own")
    along_row, along_column = cosines[0].reshape(2, 3)
    if abs(along_row @ along_column) > _OFF or not np.allclose(
        np.linalg.norm(cosines[0].reshape(2, 3), axis=1), 1, atol=_OFF
    ):
        raise Unreadable(
            "has an ImageOrientationPatient that is no pair of right-angled directions"
        )
    return np.stack([np.cross(along_row, along_column), along_column, along_row])


def distances(positions: Array, axes: Array) -> tuple[Array, list[int]]:
    """(N,) places of planes along their normal in mm, ascending, and the order that makes them so."""
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
    doubled = int((steps <= _SAME * max(usual, 1.0)).sum())
    if doubled:
        raise Unreadable(
            f"has {doubled} slice(s) at the position of another, as of several phases: give each a folder"
        )
    if np.ptp(steps) > 2 * _UNEVEN * usual:
        raise Unreadable(
            f"has slices {steps.min():.4g} to {steps.max():.4g} mm apart, so that some are missing: "
            "complete it, or write it evenly as NIfTI"
        )
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


def placed(mask: Decoded, image: Decoded) -> Decoded:
    """A DICOM mask on its image's grid, 0 where it says nothing; others are as they were.

    Raises:
        Unreadable: it lies beside the image, or between its voxels.
    """
    if mask.affine is None or image.affine is None:
        return mask
    shift = np.linalg.inv(image.affine) @ mask.affine
    scale = np.diag(shift)[:3]
    if np.abs(shift[:3, :3] - np.diag(scale)).max() > _DIRECTION * 10:
        raise Unreadable("has a mask that is turned against it")
    result = np.zeros((*image.pixels.shape[:-1], mask.pixels.shape[-1]), mask.pixels.dtype)
    marked = mask.pixels != 0
    kept: list[Array] = []
    targets: list[Array] = []
    for axis in range(3):  # x, y, z of the affine are W, H, D
        side = 2 - axis
        used = np.flatnonzero(marked.any(axis=tuple(other for other in range(4) if other != side)))
        exact = scale[axis] * used + shift[axis, 3]
        places = np.round(exact).astype(int)
        if (np.abs(exact - places) > _OFF).any():
            raise Unreadable("has a mask whose voxels lie between its own")
        if used.size and not 0 <= places.min() <= places.max() < result.shape[side]:
            raise Unreadable("has a mask that reaches beyond it")
        kept.insert(0, used)
        targets.insert(0, places)
    result[np.ix_(*targets)] = mask.pixels[np.ix_(*kept)]
    return mask._replace(pixels=result, affine=image.affine, spacing=image.spacing)
