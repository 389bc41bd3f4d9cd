"""The attributes of one DICOM image, wherever its file keeps them."""

import math
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from holdfast.datamodules.formats.decoded import Unreadable

#: The functional groups in which files of several frames keep what others keep at their top.
_GROUPS = {
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ReferencedSegmentNumber": "SegmentIdentificationSequence",
}


class Header:
    """The attributes of one frame: of its own functional groups, then the shared ones, then the
    file.

    An attribute without a value counts as absent.

    Args:
        dataset: the file.
        frame: which of its frames.

    Raises:
        Unreadable: the file describes another number of frames than it holds.
    """

    def __init__(self, dataset: Dataset, frame: int = 0) -> None:
        self.dataset = dataset
        self._groups: list[Dataset] = []
        own = dataset.get("PerFrameFunctionalGroupsSequence")
        if own:
            if len(own) != frames_of(dataset):
                raise Unreadable(f"describes {len(own)} frames and holds {frames_of(dataset)}")
            self._groups.append(own[frame])
        self._groups.extend(dataset.get("SharedFunctionalGroupsSequence") or [])

    def number(self, name: str) -> float | None:
        """An attribute of one value.

        Raises:
            Unreadable: it has several, or is no finite number.
        """
        values = self.numbers(name)
        if len(values) > 1:
            raise Unreadable(f"has {len(values)} values of {name} where one is expected")
        return values[0] if values else None

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """All values of an attribute; none where it is absent.

        Raises:
            Unreadable: one is no finite number, or there are some, but not ``count``.
        """
        try:
            value = self._value(name)
            items = value if _several(value) else [value]
            values = [float(item) for item in items] if _is(value) else []
        except (ValueError, TypeError, OverflowError) as error:
            raise Unreadable(f"has a {name} that is no number: correct it") from error
        if not all(map(math.isfinite, values)):
            raise Unreadable(f"has a {name} that is no finite number: correct it")
        if values and count is not None and len(values) != count:
            raise Unreadable(f"has {len(values)} values of {name} where {count} are expected")
        return values

    def text(self, name: str) -> str:
        """An attribute as text, empty where it is absent."""
        value = self._value(name)
        return str(value).strip() if _is(value) else ""

    def in_groups(self, name: str) -> bool:
        """Whether the functional groups tell it."""
        return any(_is(self._in(group, name)) for group in self._groups)

    def _value(self, name: str) -> Any:
        for group in self._groups:
            value = self._in(group, name)
            if _is(value):
                return value
        return self.dataset.get(name)

    def _in(self, group: Dataset, name: str) -> Any:
        items = group.get(_GROUPS[name]) if name in _GROUPS else None
        return items[0].get(name) if items else None


def frames_of(dataset: Dataset) -> int:
    """How many frames a file says that it holds."""
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except (ValueError, TypeError) as error:
        raise Unreadable("has a NumberOfFrames that is no number: correct it") from error


def _is(value: Any) -> bool:
    return value is not None and value != "" and not (_several(value) and not len(value))


def _several(value: Any) -> bool:
    return isinstance(value, MultiValue | list | tuple) and not isinstance(value, str)
