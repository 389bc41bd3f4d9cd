"""Which scan a DICOM image is of, and which one a segmentation says that it was made of."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from holdfast.datamodules.formats.decoded import Scan, Unreadable

#: What is compared, the surest first, and how it is called.
_CALLED = {
    "series": "series",
    "frames": "frame of reference",
    "instances": "image",
}


def scan_of(datasets: Sequence[Dataset]) -> Scan:
    """The scan of an image, in one file or many."""
    return Scan(
        _uids(each.get("SeriesInstanceUID") for each in datasets),
        _uids(each.get("FrameOfReferenceUID") for each in datasets),
        _uids(each.get("SOPInstanceUID") for each in datasets if len(datasets) == 1),
    )


def referred_to(segmentation: Dataset) -> Scan:
    """The scan that a segmentation was made of."""
    series = list(_items([segmentation], "ReferencedSeriesSequence"))
    groups = [
        *_items([segmentation], "PerFrameFunctionalGroupsSequence"),
        *_items([segmentation], "SharedFunctionalGroupsSequence"),
    ]
    derived = _items(groups, "DerivationImageSequence")
    images = [
        *_items(series, "ReferencedInstanceSequence"),
        *_items([segmentation, *derived], "SourceImageSequence"),
    ]
    return Scan(
        _uids(each.get("SeriesInstanceUID") for each in series),
        _uids([segmentation.get("FrameOfReferenceUID")]),
        _uids(each.get("ReferencedSOPInstanceUID") for each in images),
    )


def joined(scans: Iterable[Scan]) -> Scan:
    """The scans of an image's channels, of each of which a mask may be made."""
    return Scan(*(frozenset().union(*parts) for parts in zip(*scans, strict=True)))


def check_scan(mask: Scan | None, image: Scan | None) -> None:
    """Refuse the segmentation of another scan than its image's. One that agrees in anything stays:
    series of one frame of reference lie in the same place, and programs renew the rest of the UIDs.

    Raises:
        Unreadable: both say which scan they are of, and agree in nothing.
    """
    if mask is None or image is None:
        return
    said = [(called, getattr(mask, name), getattr(image, name)) for name, called in _CALLED.items()]
    if any(theirs & ours for _, theirs, ours in said):
        return
    for called, theirs, ours in said:
        if theirs and ours:
            raise Unreadable(
                f"has a mask that was made of another {called} ({min(theirs)}, where it is of "
                f"{min(ours)}): pair each image with its own, or, if the mask holds for both, "
                "write it as NIfTI"
            )


def _items(datasets: Iterable[Dataset], name: str) -> Iterator[Dataset]:
    """The items of a sequence that each may have."""
    for dataset in datasets:
        value = dataset.get(name)
        yield from value if isinstance(value, Items) else ()


def _uids(values: Iterable[object]) -> frozenset[str]:
    return frozenset(str(value).strip() for value in values if value)
