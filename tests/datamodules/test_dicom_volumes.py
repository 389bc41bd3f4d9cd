"""DICOM series, files of several frames and segmentations: which plane lies where."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from pydicom import Dataset

from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.formats.geometry import placed
from holdfast.datamodules.reading import Reading
from holdfast.datamodules.records import text
from holdfast.datamodules.stacked import stacked
from holdfast.datamodules.table import TableConfig, load_table
from holdfast.tta.errors import InputError
from tests.datamodules.dicoms import (
    AXIAL,
    Pixels,
    item,
    measures,
    position,
    write_dicom,
    write_frames,
    write_series,
)

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"

#: Directions of planes, rows and columns in which scanners store, as nibabel names them.
_ACQUIRED = {"axial": "SPL", "upside down": "IPL", "sagittal": "RIP", "coronal": "PIL"}


def volume(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 4096, shape).astype(np.uint16)


def geometry(affine: Pixels, place: int) -> dict[str, Any]:
    """A slice's attributes; affine: (plane, row, column) to RAS."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = np.concatenate([lps[:3, 2] / spacing[2], lps[:3, 1] / spacing[1]])
    return {
        "ImagePositionPatient": [f"{v:.8g}" for v in (lps @ [place, 0, 0, 1])[:3]],
        "ImageOrientationPatient": [f"{v:.8g}" for v in cosines],
        "PixelSpacing": [f"{spacing[1]:.8g}", f"{spacing[2]:.8g}"],
    }


@pytest.mark.parametrize("acquired", _ACQUIRED)
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_scan_is_the_same_as_dicom_and_as_nifti(
    tmp_path: Path, acquired: str, enhanced: bool
) -> None:
    turn, affine = np.deg2rad(10), np.diag([0.7, 0.8, 2.5, 1.0])
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ affine[:2, :2]
    affine[:3, 3] = -30, 12, 55
    image = nibabel.Nifti1Image(volume(5, 6, 7), affine)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    to = axcodes2ornt(tuple(_ACQUIRED[acquired]))
    stored = image.as_reoriented(ornt_transform(io_orientation(affine), to))
    planes = np.asarray(stored.dataobj)
    about = [geometry(stored.affine, place) for place in range(len(planes))]
    if enhanced:
        own = [
            {
                "PlanePositionSequence": position(*map(float, one["ImagePositionPatient"])),
                "PlaneOrientationSequence": [
                    item(ImageOrientationPatient=one["ImageOrientationPatient"])
                ],
            }
            for one in about
        ]
        shared = {"PixelMeasuresSequence": [item(PixelSpacing=about[0]["PixelSpacing"])]}
        path = write_frames(tmp_path / "scan.dcm", planes, own, shared)
    else:
        path = tmp_path / "scan"
        for place, plane in enumerate(planes):
            write_dicom(path / str(place * 3 % 7), plane, InstanceNumber=-place, **about[place])
    dicom, nifti = decode(path), decode(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(dicom.pixels, nifti.pixels)
    np.testing.assert_allclose(dicom.spacing, nifti.spacing, rtol=1e-5)
    canonical = nibabel.as_closest_canonical(image).affine
    np.testing.assert_allclose(dicom.affine, canonical, atol=1e-4)
    assert dicom.turned
    resampled = [
        ImageFiles(tmp_path, text([name]), Reading(spacing=1.0)).scaled([0], (0, 4096))
        for name in (path.name, "scan.nii.gz")
    ]
    assert resampled[0].shape == resampled[1].shape


def test_slices_are_rescaled_and_windowed_each_by_itself(tmp_path: Path) -> None:
    slices = volume(3, 6, 9)
    path = write_series(
        tmp_path / "pet",
        slices,
        RescaleSlope={0: "1", 1: "2.5", 2: "4"},
        RescaleIntercept="0",
        WindowCenter={0: "100", 1: "1000", 2: "900"},
        WindowWidth="501",
    )
    raw = slices[:, ::-1, ::-1] * np.array([1, 2.5, 4])[:, None, None]
    decoded = decode(path)
    np.testing.assert_allclose(decoded.pixels[..., 0], raw)
    assert (decoded.span, decoded.window) == (None, None)
    low = np.array([100, 1000, 900])[:, None, None] - 250.5
    shown = ImageFiles(tmp_path, text(["pet"]), Reading(window="file")).scaled([0], (0, 1))[0, 0]
    np.testing.assert_allclose(shown, np.clip((raw - low) / 500, 0, 1), atol=1e-5)
    alike = decode(write_series(tmp_path / "ct", slices, WindowCenter="40", WindowWidth="400"))
    assert alike.window == (-160, 239)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"SeriesInstanceUID": {0: "1.2", 1: "1.2", 2: "1.3", 3: "1.2"}},
            "several series, 1.2 .*1.3",
        ),
        (
            {"PatientID": {0: "a", 1: "a", 2: "a", 3: "b"}},
            "several patients, a .* and b .*: give each a folder",
        ),
        ({"ImagePositionPatient": {i: [0, 0, p] for i, p in enumerate((0, 1, 3, 4))}}, "1 to 2 mm"),
        (
            {"ImagePositionPatient": {i: [0, 0, p] for i, p in enumerate((0, 1, 1, 2))}},
            "of another",
        ),
        (
            {"ImagePositionPatient": {0: None, 1: [0, 0, 1], 2: [0, 0, 2], 3: [0, 0, 3]}},
            "1 of 4 slices without ImagePositionPatient",
        ),
        (
            {"ImageOrientationPatient": {0: AXIAL, 1: AXIAL, 2: AXIAL, 3: [0, 1, 0, 0, 0, -1]}},
            "several orientations",
        ),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no pair of right-angled"),
        ({"ImagePositionPatient": None, "InstanceNumber": None}, "their order is unknown"),
        (
            {"ImagePositionPatient": None, "InstanceNumber": {0: 1, 1: 2, 2: 2, 3: 3}},
            "their order is unknown",
        ),
        ({"RescaleSlope": {0: "1", 1: "0", 2: "1", 3: "1"}}, "RescaleSlope of 0"),
        (
            {"RescaleSlope": {0: "2", 1: "2", 2: None, 3: "2"}, "Modality": "MR"},
            "1 of 4 slices without RescaleSlope",
        ),
        ({"Modality": {0: "CT", 1: "CT", 2: "MR", 3: "CT"}}, "several modalities, CT .* MR"),
        (
            {"RescaleType": {0: "HU", 1: "HU", 2: "OD", 3: "HU"}, "Modality": "CT"},
            "several units, HU and OD",
        ),
        (
            {"FrameOfReferenceUID": {0: "1.2", 1: "1.3", 2: "1.2", 3: "1.2"}},
            "several frames of reference",
        ),
        (
            {"PixelSpacing": {0: [1, 1], 1: [1, 1], 2: [2, 1], 3: [1, 1]}},
            "several PixelSpacing, 1x1 and 2x1 mm",
        ),
        (
            {"PixelSpacing": {0: None, 1: [1, 1], 2: [1, 1], 3: [1, 1]}},
            "several PixelSpacing, none and 1x1 mm",
        ),
    ],
)
def test_a_series_that_is_none_is_refused(
    tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    path = write_series(tmp_path / "series", volume(4, 6, 9), **more)
    with pytest.raises(Unreadable, match=reason):
        decode(path)


def test_a_folder_of_other_things_is_refused_and_leftovers_are_left_alone(tmp_path: Path) -> None:
    slices = volume(3, 6, 9)
    path = write_series(tmp_path / "series", slices)
    (path / "._IM0000").write_bytes(b"\0" * 200)
    (path / "notes.txt").write_text("notes")
    (path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    np.testing.assert_array_equal(decode(path).pixels[..., 0], slices[:, ::-1, ::-1])
    write_dicom(path / "larger", volume(7, 9), SeriesInstanceUID=_uid(path), PatientID="one")
    with pytest.raises(Unreadable, match=r"several sizes, 6x9 .* and 7x9 \(larger\)"):
        decode(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("notes")
    with pytest.raises(Unreadable, match="folder without DICOM files"):
        decode(tmp_path / "empty")
    (path / "larger").write_bytes(b"no mark")
    with pytest.raises(Unreadable, match="has a slice, larger, that is no DICOM file"):
        decode(path)
    cut = path / "larger"
    cut.write_bytes((path / "IM0000").read_bytes()[:-20])
    with pytest.raises(Unreadable, match="has a slice, larger, that cannot be decoded"):
        decode(path)


def _uid(folder: Path) -> str:
    return str(pydicom.dcmread(folder / "IM0000").SeriesInstanceUID)


def test_slices_without_positions_are_numbered_and_stay_as_they_are(tmp_path: Path) -> None:
    slices = volume(4, 6, 9)
    path = write_series(tmp_path / "series", slices, ImagePositionPatient=None)
    decoded = decode(path)
    np.testing.assert_array_equal(decoded.pixels[::-1, ..., 0], slices)  # numbered downwards
    assert "order of InstanceNumber" in decoded.note
    assert (decoded.spacing, decoded.turned) == (None, False)


def test_tilted_slices_are_noted(tmp_path: Path) -> None:
    places = {place: [0, 0.5 * place, 2 * place] for place in range(4)}
    assert (
        "tilted"
        in decode(write_series(tmp_path / "a", volume(4, 6, 9), ImagePositionPatient=places)).note
    )
    assert decode(write_series(tmp_path / "b", volume(4, 6, 9))).note == ""


def test_a_dose_is_a_volume_in_its_unit() -> None:
    path = Path(pydicom.data.get_testdata_file("rtdose.dcm"))
    dataset, decoded = pydicom.dcmread(path), decode(path)
    expected = dataset.pixel_array[:, ::-1, ::-1] * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(decoded.pixels[..., 0], expected, rtol=1e-6)
    assert (decoded.unit, decoded.spacing) == ("RELATIVE", (5, 10, 10))


_SLICES, _MARKED = 6, (1, 2, 4)


def segments() -> tuple[Pixels, list[dict[str, list[Dataset]]]]:
    """Frames of two segments on three slices of a series of ``_SLICES``, and where they lie."""
    frames = np.zeros((6, 6, 16), np.uint8)
    own = []
    for number in range(len(_MARKED)):
        for segment in (1, 2):
            frames[3 * (segment - 1) + number, segment, number : number + 3] = 1
    for segment in (1, 2):
        for place in _MARKED:
            own.append(
                {
                    "PlanePositionSequence": position(0, 0, 2.0 * place),
                    "SegmentIdentificationSequence": [item(ReferencedSegmentNumber=segment)],
                }
            )
    return frames, own


def write_segmentation(path: Path, kind: str = "BINARY", **more: Any) -> Pixels:
    """A segmentation of ``segments``, and what it says on the whole series as it is stored."""
    frames, own = segments()
    shared = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=AXIAL)],
        "PixelMeasuresSequence": measures(0.5, 0.75, **more),
    }
    expected = np.zeros((_SLICES, *frames.shape[1:]), np.uint16)
    for number, place in enumerate(_MARKED):
        expected[place] = np.maximum(frames[number], 2 * frames[3 + number])
    about: dict[str, Any] = {"SegmentationType": kind, "sop": _SEGMENTATION}
    if kind == "BINARY":
        about |= {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    elif kind == "FRACTIONAL":
        about |= {"MaximumFractionalValue": 200}
        frames = frames * 150 + 40  # 40 of 200 is outside, 190 inside
    else:
        about |= {"sop": _LABEL_MAP, "PhotometricInterpretation": "PALETTE COLOR"}
        frames, own = expected[list(_MARKED)].astype(np.uint8), own[:3]
    order = [2, 0, 1, *range(3, len(frames))]
    write_frames(path, frames[order], [own[place] for place in order], shared, **about)
    return expected


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("told", [2.0, None, 1e30])  # the last is wrong
def test_a_segmentation_is_the_mask_of_its_series(
    tmp_path: Path, kind: str, told: float | None
) -> None:
    slices = volume(_SLICES, 6, 16)
    series = decode(write_series(tmp_path / "ct", slices))
    more = {} if told is None else {"SpacingBetweenSlices": told}
    expected = write_segmentation(tmp_path / "seg.dcm", kind, **more)[:, ::-1, ::-1]
    (tmp_path / "folder").mkdir()
    (tmp_path / "seg.dcm").rename(tmp_path / "folder" / "seg.dcm")
    mask = decode(tmp_path / "folder")
    np.testing.assert_array_equal(mask.pixels[..., 0], expected[1:5])
    assert (mask.spacing, mask.kind) == ((2, 0.5, 0.75), "DICOM SEG")
    stored = slices[:, ::-1, ::-1]
    box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(expected))
    nifti = nibabel.Nifti1Image(stored.transpose(2, 1, 0), series.affine)
    nibabel.save(nifti, tmp_path / "ct.nii")
    for image in (series, decode(tmp_path / "ct.nii")):
        cropped = Reading(around_roi=0).apply(image, mask)[0]
        np.testing.assert_array_equal(cropped[..., 0], stored[box])


def test_a_segmentation_is_the_mask_of_one_slice(tmp_path: Path) -> None:
    slices = volume(_SLICES, 6, 16)
    write_series(tmp_path / "ct", slices)
    expected = write_segmentation(tmp_path / "seg.dcm")
    mask = decode(tmp_path / "seg.dcm")
    for path in (tmp_path / "ct").iterdir():
        place = int(pydicom.dcmread(path).ImagePositionPatient[2]) // 2
        if place in _MARKED:
            box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(expected[place]))
            cropped = Reading(around_roi=0).apply(decode(path), mask)[0]
            np.testing.assert_array_equal(cropped[..., 0], slices[place][box])
        else:
            with pytest.raises(Unreadable, match="marks nothing"):
                Reading(around_roi=0).apply(decode(path), mask)


def test_marked_planes_at_distances_that_only_the_file_explains(tmp_path: Path) -> None:
    shared = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=AXIAL)],
        "PixelMeasuresSequence": measures(1, 1, SpacingBetweenSlices=2),
    }
    own = [
        {
            "PlanePositionSequence": position(0, 0, place),
            "SegmentIdentificationSequence": [item(ReferencedSegmentNumber=3)],
        }
        for place in (0, 4, 10)
    ]
    about = {"SegmentationType": "BINARY", "sop": _SEGMENTATION}
    path = write_frames(tmp_path / "seg", np.ones((3, 6, 9), np.uint8), own, shared, **about)
    assert decode(path).pixels[:, 0, 0, 0].tolist() == [3, 0, 3, 0, 0, 3]
    shared["PixelMeasuresSequence"] = measures(1, 1, SpacingBetweenSlices=1e-9)
    write_frames(path, np.ones((3, 6, 9), np.uint8), own, shared, **about)
    with pytest.raises(Unreadable, match="GiB of memory"):
        decode(path)


def test_planes_marked_on_every_second_slice_find_their_places(tmp_path: Path) -> None:
    slices = volume(6, 6, 9)
    series = decode(write_series(tmp_path / "ct", slices))
    frames = np.zeros((2, 6, 9), np.uint8)
    frames[:, 2, 3] = 1
    own = [
        {
            "PlanePositionSequence": position(0, 0, place),
            "SegmentIdentificationSequence": [item(ReferencedSegmentNumber=1)],
        }
        for place in (2, 6)
    ]
    shared = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=AXIAL)],
        "PixelMeasuresSequence": measures(0.5, 0.75),
    }
    about = {"SegmentationType": "BINARY", "sop": _SEGMENTATION}
    mask = decode(write_frames(tmp_path / "seg", frames, own, shared, **about))
    cropped = Reading(around_roi=0).apply(series, mask)[0]
    np.testing.assert_array_equal(cropped[..., 0], slices[1:4, 2:3, 3:4])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"step": 1.0}, "reaches beyond|lie between"),
        ({"PixelSpacing": [0.5, 0.7]}, "lie between"),
        (
            {
                "ImageOrientationPatient": [0.866, 0.5, 0, -0.5, 0.866, 0],
            },
            "turned against it",
        ),
    ],
)
def test_a_mask_of_another_scan_is_refused(
    tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    series = decode(write_series(tmp_path / "ct", volume(3, 6, 16), **more))
    write_segmentation(tmp_path / "seg.dcm")
    with pytest.raises(Unreadable, match=reason):
        Reading(around_roi=0).apply(series, decode(tmp_path / "seg.dcm"))


def refers(series: str = "", *instances: str) -> dict[str, Any]:
    """What a segmentation says that it was made of."""
    images = [item(ReferencedSOPInstanceUID=uid) for uid in instances]
    about = {"SeriesInstanceUID": series} if series else {}
    return {"ReferencedSeriesSequence": [item(**about, ReferencedInstanceSequence=images)]}


def derived(instance: str) -> dict[str, Any]:
    """The same, said of its planes."""
    image = item(SourceImageSequence=[item(ReferencedSOPInstanceUID=instance)])
    return {"DerivationImageSequence": [image]}


#: What an image says, what its segmentation does, and the kind in which they differ.
_SAID: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"SeriesInstanceUID": "1.2"}, refers("1.2"), ""),
    ({"SeriesInstanceUID": "1.2"}, refers("1.3"), "series"),
    ({"SeriesInstanceUID": "1.2"}, {**refers("1.2"), "FrameOfReferenceUID": "1.9"}, ""),
    ({"SeriesInstanceUID": "1.2"}, {}, ""),
    ({"SeriesInstanceUID": "1.2"}, {"ReferencedSeriesSequence": []}, ""),
    ({"FrameOfReferenceUID": "1.4"}, {"FrameOfReferenceUID": "1.4"}, ""),
    ({"FrameOfReferenceUID": "1.4"}, {"FrameOfReferenceUID": "1.5"}, "frame of reference"),
    ({"FrameOfReferenceUID": "1.4"}, {**refers("1.3"), "FrameOfReferenceUID": "1.4"}, ""),
    ({"FrameOfReferenceUID": "1.4"}, refers("1.3", "1.6"), ""),
    (
        {"SeriesInstanceUID": "1.2", "FrameOfReferenceUID": "1.4"},  # another sequence of a scan
        {**refers("1.3"), "FrameOfReferenceUID": "1.4"},
        "",
    ),
    (
        {"SeriesInstanceUID": "1.2", "FrameOfReferenceUID": "1.4"},
        {**refers("1.3"), "FrameOfReferenceUID": "1.5"},
        "series",
    ),
    ({"SOPInstanceUID": "1.6"}, refers("", "1.7", "1.6"), ""),
    ({"SOPInstanceUID": "1.6"}, refers("", "1.7"), "image"),
    ({"SOPInstanceUID": "1.6"}, {"shared": derived("1.6")}, ""),
    ({"SOPInstanceUID": "1.6"}, {"shared": derived("1.7")}, "image"),
]


def written(image: Path, mask: Path, said: dict[str, str], refers_to: dict[str, Any]) -> None:
    """A file of several frames, and a segmentation with the same geometry."""
    about = dict(refers_to)
    geometry = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=AXIAL)],
        "PixelMeasuresSequence": measures(0.5, 0.75),
    }
    places = [{"PlanePositionSequence": position(0, 0, 2.0 * place)} for place in range(3)]
    one = [item(ReferencedSegmentNumber=1)]
    own = [{**place, "SegmentIdentificationSequence": one} for place in places]
    shared = {**geometry, **about.pop("shared", {})}
    about |= {"SegmentationType": "BINARY", "sop": _SEGMENTATION}
    write_frames(image, volume(3, 6, 16), places, geometry, **said)
    write_frames(mask, np.ones((3, 6, 16), np.uint8), own, shared, **about)


@pytest.mark.parametrize(("said", "refers_to", "other"), _SAID)
def test_a_mask_that_was_made_of_another_scan_is_refused(
    tmp_path: Path, said: dict[str, str], refers_to: dict[str, Any], other: str
) -> None:
    written(tmp_path / "image.dcm", tmp_path / "seg.dcm", said, refers_to)
    table = tmp_path / "t.csv"
    table.write_text("path,mask\nimage.dcm,seg.dcm\n")
    image, mask = decode(tmp_path / "image.dcm"), decode(tmp_path / "seg.dcm")
    config = TableConfig(path=str(table), labels={0: "none", 1: "all"})
    if not other:
        assert Reading(around_roi=0).apply(image, mask)[0].shape == (3, 6, 16, 1)
        assert (load_table(config, "target").batch([0])["mask"] == 1).all()
        return
    sentence = f"made of another {other} .*pair each image with its own.*write it as NIfTI"
    with pytest.raises(Unreadable, match=sentence):
        Reading(around_roi=0).apply(image, mask)
    with pytest.raises(InputError, match=f"which has a mask that was made of another {other}"):
        load_table(config, "target")


def test_a_mask_of_a_series_in_many_files_is_held_against_it(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    for own, series in (("1.2", "1.2"), ("1.2", "1.3")):
        image = decode(write_series(tmp_path / "ct", volume(6, 6, 16), SeriesInstanceUID=series))
        dataset.ReferencedSeriesSequence = refers(own)["ReferencedSeriesSequence"]
        dataset.save_as(tmp_path / "seg.dcm")
        mask = decode(tmp_path / "seg.dcm")
        if own == series:
            assert placed(mask, image).pixels.any()
        else:
            with pytest.raises(Unreadable, match=r"another series \(1\.2, where it is of 1\.3\)"):
                placed(mask, image)


def test_a_mask_of_one_channel_is_that_of_the_image(tmp_path: Path) -> None:
    files = []
    for series in ("1.2", "1.3"):
        folder = tmp_path / series
        about = {"SeriesInstanceUID": series}
        folder.mkdir()
        written(folder / "image.dcm", tmp_path / f"{series}.dcm", about, refers(series))
        files.append(decode(folder / "image.dcm"))
    reading = Reading(around_roi=0, window=(0, 4096))
    for series in ("1.2", "1.3"):
        image = stacked(files, reading, decode(tmp_path / f"{series}.dcm"))[1]
        assert image.shape == (3, 6, 16, 2)


def test_a_segmentation_without_positions_is_refused(tmp_path: Path) -> None:
    about = {"SegmentationType": "BINARY", "sop": _SEGMENTATION}
    path = write_frames(tmp_path / "seg", segments()[0], **about)
    with pytest.raises(Unreadable, match="without positions"):
        decode(path)


def test_one_file_in_a_folder_is_that_file(tmp_path: Path) -> None:
    slices = volume(1, 6, 9)
    np.testing.assert_array_equal(
        decode(write_series(tmp_path / "a", slices)).pixels[..., 0], slices[0]
    )
    (tmp_path / "b").mkdir()
    film = write_frames(tmp_path / "b" / "film.dcm", volume(4, 6, 9))
    np.testing.assert_array_equal(decode(film.parent).pixels, decode(film).pixels)
    write_frames(film.parent / "other.dcm", volume(4, 6, 9))
    with pytest.raises(Unreadable, match="several frames beside others"):
        decode(film.parent)
