"""A folder that holds the slices of one DICOM series."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from holdfast.datamodules.formats.dataset import Frame, frames, is_dicom, opened
from holdfast.datamodules.formats.decoded import Unreadable
from holdfast.datamodules.formats.headers import Header, frames_of

#: What all slices of a series share, and what a folder holds several of where they do not.
_SHARED = {
    "series": ("SeriesInstanceUID",),
    "patients": ("PatientID",),
    "modalities": ("Modality",),
    "frames of reference": ("FrameOfReferenceUID",),
    "kinds of image": ("PhotometricInterpretation",),
    "sizes": ("Rows", "Columns"),
}

#: Suffixes under which slices come, the number at the end of a UID among them.
_SUFFIXES = ("", ".dcm", ".dicom", ".ima")


def members(folder: Path) -> list[Path]:
    """The DICOM files in a folder, in the order of their names; others are left alone.

    Raises:
        Unreadable: there is none, or one that is not what its name says.
    """
    # The index of a disc bears DICOM's mark too, and what begins with a dot is an operating
    # system's.
    paths = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.upper() != "DICOMDIR"
        and _is_slice(path)
    ]
    if not paths:
        raise Unreadable("is a folder without DICOM files")
    return paths


def slices(paths: Sequence[Path]) -> list[Frame]:
    """The planes of the files of a series.

    Raises:
        Unreadable: they are not of one series and patient, or do not fit together.
    """
    datasets = [opened(path) for path in paths]
    for several, attributes in _SHARED.items():
        _check_one(paths, datasets, several, attributes)
    if max(map(frames_of, datasets)) > 1:
        raise Unreadable("holds files of several frames beside others: give each a folder")
    return [
        plane
        for path, dataset in zip(paths, datasets, strict=True)
        for plane in _named(path, dataset)
    ]


def _is_slice(path: Path) -> bool:
    """Whether a file is DICOM; one that only looks like it would be missed without a word."""
    if is_dicom(path):
        return True
    if path.suffix.lower() in _SUFFIXES:
        raise Unreadable(f"has a slice, {path.name}, that is no DICOM file: repair or remove it")
    return False


def _named(path: Path, dataset: Dataset) -> list[Frame]:
    try:
        return frames(dataset, path.name)
    except Unreadable as error:
        raise Unreadable(f"has a slice, {path.name}, that {error}") from error


def _check_one(
    paths: Sequence[Path], datasets: Sequence[Dataset], several: str, attributes: Sequence[str]
) -> None:
    """Refuse slices that differ in an attribute, and name both."""
    values = ["x".join(str(each.get(name, "")) for name in attributes) for each in datasets]
    for path, value in zip(paths, values, strict=True):
        if value != values[0]:
            raise Unreadable(
                f"holds several {several}, {values[0] or 'none'} ({paths[0].name}) and "
                f"{value or 'none'} ({path.name}): give each a folder of its own"
            )


def numbered(headers: Sequence[Header]) -> list[int]:
    """The order of planes without positions: that of their InstanceNumber.

    Raises:
        Unreadable: one is missing or doubled.
    """
    numbers = [header.number("InstanceNumber") for header in headers]
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(headers):
        raise Unreadable(
            "has slices without positions, and an InstanceNumber that is missing or doubled: their "
            "order is unknown"
        )
    return sorted(range(len(known)), key=known.__getitem__)
