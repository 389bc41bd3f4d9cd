"""DICOM's raw values and display windows: the modality and the VOI transformation of its standard
(PS3.3 C.11).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from holdfast.datamodules.formats.dataset import Frame
from holdfast.datamodules.formats.decoded import Array, Unreadable
from holdfast.datamodules.formats.headers import Header
from holdfast.datamodules.formats.tables import LookupTable, table_of

#: Projections, whose rescaled values are in no unit that others share: they span what they store.
_PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA")

#: Types of raw values that are units (C.11.1.1.2); others are unspecified, or a vendor's own.
_UNITS = ("HU", "HU_MOD", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")

#: Width of a window that is a step: what is less than a stored value, and more than rounding.
_STEP = 1e-3

#: Steepness of the standard's sigmoid window (C.11.2.1.3.1).
_SIGMOID = 4.0

_INT16 = np.iinfo(np.int16)

Ends = tuple[float, float]


class Modality(NamedTuple):
    """From stored to raw values: a table, or ``slope * stored + intercept``.

    Attributes:
        slope: raw values a stored one.
        intercept: raw value of a stored 0.
        stored: smallest and largest number that the file can store; None for floating-point
            numbers.
        table: its modality table.
        spans: whether raw values are in no unit, so that what the file can hold is what it spans.
    """

    slope: float
    intercept: float
    stored: Ends | None
    table: LookupTable | None
    spans: bool

    @property
    def ends(self) -> Ends | None:
        """Smallest and largest raw value that the file can hold."""
        if self.table is not None:
            return self.table.ends
        if self.stored is None:
            return None
        low, high = (self.slope * end + self.intercept for end in self.stored)
        return min(low, high), max(low, high)

    @property
    def plain(self) -> bool:
        """Whether raw values are the stored ones."""
        return self.table is not None or (self.slope, self.intercept) == (1, 0)

    def apply(self, pixels: Array, dtype: np.dtype[np.generic] | None) -> Array:
        """Stored values as raw ones; ``dtype``: int16 or float32, None to keep the type."""
        if self.table is not None:
            pixels = self.table.apply(pixels)
            return pixels if dtype is None else pixels.astype(dtype)
        if dtype is None:
            return pixels
        if dtype == np.int16:  # may wrap around on the way, which the end, that fits in, undoes
            values = pixels.astype(np.int16)
            values *= np.int64(self.slope).astype(np.int16)
            values += np.int64(self.intercept).astype(np.int16)
            return values
        return (pixels * np.float64(self.slope) + self.intercept).astype(dtype)


def modality_of(frame: Frame) -> Modality:
    """How a plane's stored values become raw ones.

    Raises:
        Unreadable: an attribute that it needs is wrong.
    """
    header = frame.header
    table = table_of(header.dataset, "ModalityLUTSequence")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept") or 0.0
    if slope is None:
        slope = header.number("DoseGridScaling") or 1.0  # of a radiotherapy dose
    if slope == 0:
        raise Unreadable("has a RescaleSlope of 0, which makes all its values one: correct it")
    stored = _stored(frame)
    unsigned = stored is not None and stored[0] == 0
    identity, projection = (slope, intercept) == (1, 0), header.text("Modality") in _PROJECTIONS
    unitless = not unit_of(header) and (identity or projection)
    return Modality(slope, intercept, stored, table, table is not None or (unsigned and unitless))


def unit_of(header: Header) -> str:
    """What raw values are measured in; empty where the file does not say."""
    told = header.text("RescaleType").upper()
    if told in _UNITS:
        return told
    if header.text("Modality") == "CT":  # which need not say so, but has values below 0
        signed = header.number("PixelRepresentation") == 1
        return "HU" if signed or (header.number("RescaleIntercept") or 0) < 0 else ""
    return header.text("Units") or header.text("DoseUnits")  # of PET, and of radiotherapy doses


def _stored(frame: Frame) -> Ends | None:
    if not np.issubdtype(frame.pixels.dtype, np.integer):
        return None
    if frame.header.text("PhotometricInterpretation") == "PALETTE COLOR":
        return 0.0, float(np.iinfo(frame.pixels.dtype).max)
    bits = int(frame.header.number("BitsStored") or 8 * frame.pixels.itemsize)
    if frame.pixels.dtype.kind == "u":
        return 0.0, 2.0**bits - 1
    return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1


def raw(planes: Sequence[Frame]) -> tuple[list[Array], Ends | None]:
    """Raw values of planes that belong together, all of one type, and what they span where that is
    known.

    The type is the files' own where nothing is rescaled, else int16, or float32 where that does not
    do.

    Raises:
        Unreadable: an attribute that it needs is wrong, or planes are in several units.
    """
    modalities = [modality_of(plane) for plane in planes]
    _check_units(planes)
    _check_slopes(planes, modalities)
    dtype = None if all(modality.plain for modality in modalities) else _type(modalities, planes)
    values = [
        modality.apply(plane.pixels, dtype)
        for modality, plane in zip(modalities, planes, strict=True)
    ]
    ends = [modality.ends for modality in modalities if modality.spans]
    known = [end for end in ends if end is not None]
    if len(known) < len(planes):
        return values, None
    return values, (min(low for low, _ in known), max(high for _, high in known))


def _check_units(planes: Sequence[Frame]) -> None:
    """Refuse planes whose raw values are in several units."""
    units = dict.fromkeys(unit_of(plane.header) for plane in planes)
    if all(plane.header.text("Modality") == "CT" for plane in planes):
        units = {unit: None for unit in units if unit} or units  # a slice of CT need not say so
    if len(units) > 1:
        told = " and ".join(unit or "no unit" for unit in units)
        raise Unreadable(f"has slices in several units, {told}: correct RescaleType or Units")


def _check_slopes(planes: Sequence[Frame], modalities: Sequence[Modality]) -> None:
    """Refuse planes of which some are rescaled and others say nothing of it."""
    stored = [
        modality.table is None and plane.header.number("RescaleSlope") is None
        for plane, modality in zip(planes, modalities, strict=True)
    ]
    missing = sum(stored)
    if 0 < missing < len(planes) and not all(modality.plain for modality in modalities):
        raise Unreadable(
            f"has {missing} of {len(planes)} slices without RescaleSlope, whose values the "
            "others' do not compare with: correct it"
        )


def _type(modalities: Sequence[Modality], planes: Sequence[Frame]) -> np.dtype[np.generic]:
    """int16 where all raw values are whole and fit in, as CT's do, whatever their stored type
    allows.
    """
    for modality, plane in zip(modalities, planes, strict=True):
        whole = modality.slope.is_integer() and modality.intercept.is_integer()
        if not whole or modality.stored is None or modality.table is not None:
            return np.dtype(np.float32)
        for stored in (int(plane.pixels.min()), int(plane.pixels.max())):
            value = modality.slope * stored + modality.intercept
            if not _INT16.min <= value <= _INT16.max:
                return np.dtype(np.float32)
    return np.dtype(np.int16)


class DisplayWindow(NamedTuple):
    """A display window: the straight line between two raw values, a sigmoid, or a table."""

    ends: Ends
    sigmoid: bool = False
    table: LookupTable | None = None

    @property
    def linear(self) -> bool:
        """Whether its ends say all."""
        return self.table is None and not self.sigmoid

    def apply(self, values: Array) -> Array:
        """Raw values as 0..1, float32."""
        if self.table is not None:
            values = self.table.apply(values)
        low, high = self.ends
        share = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        if self.sigmoid:
            return torch.sigmoid(torch.from_numpy(_SIGMOID * (share - np.float32(0.5)))).numpy()
        return np.clip(share, 0, 1)


def window_of(header: Header) -> DisplayWindow | None:
    """The first display window, as ``pydicom.pixels.apply_voi_lut`` chooses and applies it.

    Raises:
        Unreadable: an attribute that it needs is wrong.
    """
    table = table_of(header.dataset, "VOILUTSequence")
    if table is not None:
        return DisplayWindow(table.ends, table=table)
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if not centers or not widths:
        return None
    center, width = centers[0], widths[0]
    function = header.text("VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise Unreadable(f"has a display window of a kind unknown ({function}): set data.window")
    if function == "LINEAR":  # of whole numbers: C.11.2.1.2.1
        center, width = center - 0.5, width - 1
    if width < 0 or (width == 0 and function != "LINEAR"):
        raise Unreadable(f"has a display window of width {widths[0]:g}: set data.window=[LOW,HIGH]")
    low = center - width / 2
    return DisplayWindow((low, low + max(width, _STEP)), function == "SIGMOID")


def displayed(
    planes: Sequence[Frame], values: Sequence[Array], arrange: Callable[[Sequence[Array]], Array]
) -> tuple[Ends | None, Callable[[], Array] | None]:
    """The display of planes that belong together: ``window`` and ``display`` of ``Decoded``.

    A window that is wrong is refused when it is asked for, not before.

    Args:
        planes: what the files say.
        values: their raw values.
        arrange: makes one image of planes.
    """
    try:
        windows = [window_of(plane.header) for plane in planes]
    except Unreadable as error:
        return None, _refusing(error)
    known = [window for window in windows if window is not None]
    if len(known) < len(windows) or values[0].shape[-1] == 3:
        return None, None
    if all(window.linear and window.ends == known[0].ends for window in known):
        return known[0].ends, None
    return None, lambda: arrange(
        [window.apply(plane) for window, plane in zip(known, values, strict=True)]
    )


def _refusing(error: Unreadable) -> Callable[[], Array]:
    def refuse() -> Array:
        raise error

    return refuse
