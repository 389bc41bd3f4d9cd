"""DICOM files: raw values, units, display windows and polarity as pydicom gives them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from holdfast import datamodules
from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.files import ImageFiles
from holdfast.datamodules.formats.dicom import is_dicom
from holdfast.datamodules.reading import Reading
from holdfast.datamodules.records import text
from tests.datamodules.dicoms import item, table, write_dicom, write_frames


def stored(bits: int = 12, shape: tuple[int, ...] = (6, 9)) -> np.ndarray[Any, Any]:
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(bits).integers(0, 2**bits, shape).astype(dtype)


def shown(path: Path, **reading: Any) -> torch.Tensor:
    return ImageFiles(path.parent, text([path.name]), Reading(**reading)).scaled([0], (0, 1))[0, 0]


def reference(path: Path) -> np.ndarray[Any, Any]:
    """What pydicom displays, scaled to 0..1 by the ends that it maps to; MONOCHROME1 turned
    over.
    """
    dataset = pydicom.dcmread(path)
    raw = apply_modality_lut(dataset.pixel_array, dataset)
    values = apply_voi_lut(raw, dataset)
    probe = np.array([-(10**6), 10**6])  # far outside of every window
    low, high = apply_voi_lut(probe, dataset)
    share = (values - float(low)) / (float(high) - float(low))
    return 1 - share if dataset.PhotometricInterpretation == "MONOCHROME1" else share


def spoiled(path: Path) -> Path:
    """The file with text for the number 7777, which pydicom would not write."""
    path.write_bytes(path.read_bytes().replace(b"7777", b"much"))
    return path


def test_bits_units_and_types(tmp_path: Path) -> None:
    pixels = stored()
    plain = decode(write_dicom(tmp_path / "plain.dcm", pixels, bits=12))
    np.testing.assert_array_equal(plain.pixels[..., 0], pixels)
    assert (plain.span, plain.unit, plain.pixels.dtype) == ((0, 4095), "", np.uint16)
    unit = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "Modality": "CT"}
    hounsfield = decode(write_dicom(tmp_path / "ct", pixels, bits=12, **unit))
    np.testing.assert_array_equal(hounsfield.pixels[..., 0], pixels.astype(int) - 1024)
    assert (hounsfield.span, hounsfield.unit, hounsfield.kind) == (None, "HU", "DICOM CT")
    assert hounsfield.pixels.dtype == np.int16
    signed = decode(write_dicom(tmp_path / "hu", pixels.astype(np.int16), Modality="CT"))
    assert (signed.span, signed.unit) == (None, "HU")
    vendors = {"RescaleSlope": "1.7", "RescaleIntercept": "0", "RescaleType": "normalized"}
    magnetic = decode(write_dicom(tmp_path / "mr", pixels, Modality="MR", **vendors))
    assert (magnetic.span, magnetic.unit) == (None, "")
    high = decode(write_dicom(tmp_path / "high", stored(16), **unit))
    assert (high.pixels.dtype, high.pixels.max()) == (np.float32, stored(16).max() - 1024.0)
    pet = {"RescaleSlope": "0.37", "RescaleIntercept": "0", "Modality": "PT", "Units": "BQML"}
    activity = decode(write_dicom(tmp_path / "pet", pixels, bits=12, **pet))
    np.testing.assert_allclose(activity.pixels[..., 0], pixels * 0.37, rtol=1e-6)
    assert (activity.span, activity.unit, activity.pixels.dtype) == (None, "BQML", np.float32)
    colour = stored(8, (6, 9, 3))
    np.testing.assert_array_equal(
        decode(write_dicom(tmp_path / "colour.dcm", colour, bits=8)).pixels, colour
    )


def test_a_window_holds_for_raw_values_and_monochrome1_is_turned_over_after_it(
    tmp_path: Path,
) -> None:
    pixels = np.linspace(0, 4095, 54).astype(np.uint16).reshape(6, 9)
    own = {"WindowCenter": "2500", "WindowWidth": "1500", "bits": 12}
    path = write_dicom(tmp_path / "a", pixels, PhotometricInterpretation="MONOCHROME1", **own)
    raw = torch.from_numpy(pixels.astype(np.float32))
    for window, low, high in (
        (None, 0, 4095),
        ("file", 1750, 3249),
        ((2000.0, 3000.0), 2000, 3000),
        ("percentile", *np.percentile(pixels, (0.5, 99.5))),
    ):
        expected = 1 - ((raw - low) / (high - low)).clamp(0, 1)
        torch.testing.assert_close(shown(path, window=window), expected)
    np.testing.assert_allclose(shown(path, window="file"), reference(path), atol=1e-5)
    padded = shown(path, window="file", size=(10, 9), fit="pad")
    assert padded[0].max() == padded[-1].max() == 0  # what surrounds it is dark
    other = write_dicom(tmp_path / "b", pixels, **own)
    torch.testing.assert_close(shown(other, window="file"), 1 - shown(path, window="file"))
    both = ImageFiles(tmp_path, text(["a", "b"]), Reading())
    assert (both.facts.limits, both.facts.says) == ((0, 4095), True)


def test_a_radiograph_spans_what_it_stores_and_the_sets_range_is_not_turned_over(
    tmp_path: Path,
) -> None:
    scale = {"RescaleSlope": "0.5", "RescaleIntercept": "200", "Modality": "CR", "bits": 12}
    path = write_dicom(tmp_path / "cr", stored(), PhotometricInterpretation="MONOCHROME1", **scale)
    expected = 1 - torch.from_numpy(stored() / np.float32(4095))
    torch.testing.assert_close(shown(path), expected)
    odd = write_dicom(
        tmp_path / "odd", stored().astype(np.int16), PhotometricInterpretation="MONOCHROME1"
    )
    with pytest.raises(Unreadable, match=r"MONOCHROME1 and does not say .* data\.window="):
        Reading().apply(decode(odd))


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_display_windows_are_pydicoms(
    tmp_path: Path, function: str | None, photometric: str
) -> None:
    more = {} if function is None else {"VOILUTFunction": function}
    path = write_dicom(
        tmp_path / "a.dcm",
        stored(),
        bits=12,
        PhotometricInterpretation=photometric,
        RescaleSlope="1",
        RescaleIntercept="-1024",
        WindowCenter=["40", "500"],
        WindowWidth=["400", "1500"],
        **more,
    )
    np.testing.assert_allclose(shown(path, window="file"), reference(path), atol=1e-5)


def test_a_window_of_width_one_is_a_step(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", stored(), bits=12, WindowCenter="2000", WindowWidth="1")
    np.testing.assert_array_equal(shown(path, window="file"), stored() >= 2000)


def test_lookup_tables_are_applied(tmp_path: Path) -> None:
    modality = table(100, np.arange(3000)[::-1] + 500, 16)
    path = write_dicom(tmp_path / "m", stored(), bits=12, ModalityLUTSequence=modality)
    dataset = pydicom.dcmread(path)
    decoded = decode(path)
    np.testing.assert_array_equal(
        decoded.pixels[..., 0], apply_modality_lut(dataset.pixel_array, dataset)
    )
    assert decoded.span == (0, 65535)
    voi = table(500, np.sqrt(np.arange(2000) / 2000) * 4095, 12)
    window = {"WindowCenter": "100", "WindowWidth": "50"}  # a table goes before a window
    path = write_dicom(tmp_path / "v", stored(), bits=12, VOILUTSequence=voi, **window)
    dataset = pydicom.dcmread(path)
    expected = apply_voi_lut(dataset.pixel_array, dataset) / 4095
    np.testing.assert_allclose(shown(path, window="file"), expected, atol=1e-6)
    np.testing.assert_array_equal(decode(path).pixels[..., 0], stored())
    short = table(0, np.arange(10), 16)
    short[0].LUTDescriptor = [4096, 0, 16]
    path = write_dicom(tmp_path / "short", stored(), bits=12, ModalityLUTSequence=short)
    with pytest.raises(Unreadable, match="ModalityLUTSequence of 10 entries"):
        decode(path)


def test_a_table_of_eight_bits_has_more_than_256_places(tmp_path: Path) -> None:
    entries = np.arange(4096) // 16
    path = write_dicom(tmp_path / "v", stored(), bits=12, VOILUTSequence=table(0, entries, 8))
    np.testing.assert_allclose(shown(path, window="file"), entries[stored()] / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["Float", "DoubleFloat"])
def test_floating_point_pixels_keep_their_range(tmp_path: Path, kind: str) -> None:
    dtype = np.float32 if kind == "Float" else np.float64
    pixels = np.random.default_rng(0).uniform(0, 0.94, (6, 9)).astype(dtype)
    more = {f"{kind}PixelData": pixels.tobytes(), "BitsAllocated": 8 * pixels.itemsize}
    path = write_dicom(tmp_path / "map.dcm", pixels, **more)
    decoded = decode(path)
    np.testing.assert_allclose(decoded.pixels[..., 0], pixels, rtol=1e-6)
    assert (decoded.span, decoded.pixels.dtype, decoded.note) == (None, np.float32, "")
    torch.testing.assert_close(shown(path), torch.from_numpy(pixels.astype(np.float32)))


def test_a_flat_use_of_the_range_is_noted(tmp_path: Path) -> None:
    for bits, noted in ((16, True), (12, False)):
        write_dicom(tmp_path / str(bits), stored(11), bits=bits)
        images = ImageFiles(tmp_path, text([str(bits)]), Reading())
        assert any("nearly flat" in note for note in images.facts.notes) is noted


def test_functional_groups_go_before_the_file(tmp_path: Path) -> None:
    frames = stored(12, (3, 6, 9))
    shared = {
        "PixelValueTransformationSequence": [item(RescaleSlope="2", RescaleIntercept="-1024")],
        "FrameVOILUTSequence": [item(WindowCenter="40", WindowWidth="400")],
    }
    path = write_frames(tmp_path / "shared", frames, shared=shared, bits=12, Modality="CT")
    decoded = decode(path)
    np.testing.assert_array_equal(decoded.pixels[..., 0], frames.astype(int) * 2 - 1024)
    assert (decoded.window, decoded.unit, decoded.span) == ((-160, 239), "HU", None)
    own = [
        {
            "PixelValueTransformationSequence": [
                item(RescaleSlope=f"{place + 1}.5", RescaleIntercept=f"{-place}")
            ],
            "FrameVOILUTSequence": [item(WindowCenter=f"{500 * (place + 1)}", WindowWidth="401")],
        }
        for place in range(3)
    ]
    path = write_frames(tmp_path / "own", frames, own, shared, bits=12, RescaleSlope="9")
    decoded = decode(path)
    slopes, centers = np.array([1.5, 2.5, 3.5])[:, None, None], [500, 1000, 1500]
    raw = frames * slopes - np.arange(3)[:, None, None]
    np.testing.assert_allclose(decoded.pixels[..., 0], raw)
    assert decoded.pixels.dtype == np.float32
    expected = np.stack(
        [
            np.clip((plane - center + 200.5) / 400, 0, 1)
            for plane, center in zip(raw, centers, strict=True)
        ]
    )
    np.testing.assert_allclose(shown(path, window="file"), expected, atol=1e-5)


def test_a_film_is_a_volume_as_it_is_stored(tmp_path: Path) -> None:
    frames = stored(8, (4, 6, 9))
    decoded = decode(write_frames(tmp_path / "cine.dcm", frames, bits=8))
    np.testing.assert_array_equal(decoded.pixels[..., 0], frames)
    assert "without positions" in decoded.note
    assert decoded.spacing is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "RescaleSlope of 0"),
        ({"RescaleSlope": "7777", "RescaleIntercept": "0"}, "RescaleSlope that is no number"),
        ({"RescaleSlope": "nan", "RescaleIntercept": "0"}, "no finite number"),
        ({"RescaleSlope": ["1", "2"], "RescaleIntercept": "0"}, "2 values of RescaleSlope"),
        ({"PixelSpacing": ["1", "2", "3"]}, "3 values of PixelSpacing where 2"),
        ({"PixelSpacing": ["0", "0"]}, "PixelSpacing of 0 and 0 mm"),
        ({"BitsStored": None}, "Bits Stored"),
        ({"HighBit": 15}, "values of 12 bits below bit 15"),
        ({"Rows": 2}, "holds more pixels than it says"),
        ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 3}, "cannot be decoded|colours"),
    ],
)
def test_wrong_attributes_are_refused(
    tmp_path: Path, attributes: dict[str, Any], reason: str
) -> None:
    path = spoiled(write_dicom(tmp_path / "a.dcm", stored(), bits=12, **attributes))
    with pytest.raises(Unreadable, match=reason):
        decode(path)


def test_empty_attributes_are_absent(tmp_path: Path) -> None:
    empty = {"RescaleSlope": "", "RescaleIntercept": None, "WindowCenter": "", "PixelSpacing": None}
    decoded = decode(write_dicom(tmp_path / "a.dcm", stored(), bits=12, **empty))
    np.testing.assert_array_equal(decoded.pixels[..., 0], stored())
    assert (decoded.span, decoded.window, decoded.spacing) == ((0, 4095), None, None)


def test_a_wrong_window_is_refused_only_where_it_is_asked_for(tmp_path: Path) -> None:
    for name, more, reason in (
        ("text", {"WindowCenter": "7777", "WindowWidth": "4"}, "WindowCenter that is no number"),
        ("none", {"WindowCenter": "5", "WindowWidth": "0"}, "display window of width 0"),
        (
            "kind",
            {"WindowCenter": "5", "WindowWidth": "9", "VOILUTFunction": "CUBE"},
            "kind unknown",
        ),
        ("absent", {}, "names no display window"),
    ):
        path = spoiled(write_dicom(tmp_path / name, stored(), bits=12, **more))
        decoded = decode(path)
        assert Reading().apply(decoded)[1] == (0, 4095)
        with pytest.raises(Unreadable, match=reason):
            Reading(window="file").apply(decoded)


def test_a_plane_tells_its_spacing(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", stored(8, (8, 12)), PixelSpacing=["2", "0.5"])
    assert decode(path).spacing == (2, 0.5)
    assert shown(path, spacing=1.0).shape == (15, 6)
    detector = write_dicom(tmp_path / "b", stored(8), ImagerPixelSpacing=["0.1", "0.2"])
    assert decode(detector).spacing == (0.1, 0.2)


def test_what_holds_no_image_is_named(tmp_path: Path) -> None:
    pdf = write_dicom(tmp_path / "report.dcm", stored(8), sop=uid.EncapsulatedPDFStorage)
    report = pydicom.dcmread(pdf)
    del report.PixelData
    report.save_as(pdf)
    (tmp_path / "text.dcm").write_text("not an image")
    contours = write_dicom(tmp_path / "contours.dcm", stored(8), sop=uid.RTStructureSetStorage)
    drawn = pydicom.dcmread(contours)
    del drawn.PixelData
    drawn.save_as(contours)
    slide = uid.VLWholeSlideMicroscopyImageStorage
    write_frames(tmp_path / "slide.dcm", stored(8, (3, 6, 9)), sop=slide)
    film = write_dicom(tmp_path / "film", stored(8))
    dataset = pydicom.dcmread(film)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\1\2\3"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(film)
    for name, reason in (
        ("text.dcm", "is no DICOM file"),
        ("report.dcm", r"is DICOM without pixels \(Encapsulated PDF\): leave it out"),
        ("contours.dcm", "holds contours, and no pixels"),
        ("slide.dcm", "whole slide in tiles"),
        ("film", "MPEG-4 .* no decoder"),
    ):
        with pytest.raises(Unreadable, match=reason):
            decode(tmp_path / name)


def test_dicom_is_known_by_its_mark(tmp_path: Path) -> None:
    assert is_dicom(write_dicom(tmp_path / "IM0001", stored()))
    (tmp_path / "short").write_bytes(b"DICM")
    (tmp_path / "empty").touch()
    assert not any(is_dicom(tmp_path / name) for name in ("short", "empty"))


def test_a_missing_decoder_is_named_with_what_installs_it() -> None:
    names = ("MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm")
    paths = [str(pydicom.data.get_testdata_file(name, download=False)) for name in names]
    code = f"""
import sys
from pathlib import Path
from types import ModuleType
sys.modules |= dict.fromkeys(("pylibjpeg", "jpeg_ls"))
name = "holdfast.datamodules"
package = sys.modules[name] = ModuleType(name)  # without what it imports
package.__path__ = [{str(Path(datamodules.__file__).parent)!r}]
from holdfast.datamodules.formats.dataset import Unreadable, frames, opened
for path in {paths!r}:
    try:
        frames(opened(Path(path)), "")
    except Unreadable as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    missing, limited = done.stdout.splitlines()
    install = 'pip install "holdfast[dicom]"'
    assert missing == f"is compressed as JPEG-LS Lossless Image Compression: {install} reads it"
    assert limited.startswith("cannot be decoded: Unable to decode")
    assert limited.endswith(f": {install} may read it")


def test_damaged_runs_are_refused(tmp_path: Path) -> None:
    """Runs that are longer than the image: the decoder, written in Rust, panics."""
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small_RLE.dcm", download=False))
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    header = 64  # bytes
    runs = frame[:header] + b"\x81\0" * ((len(frame) - header) // 2)
    dataset.PixelData = pydicom.encaps.encapsulate([runs])
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(Unreadable, match="cannot be decoded"):
        decode(tmp_path / "a.dcm")
