"""Every DICOM file that comes with pydicom, read as pydicom reads it, or refused with its
reason.
"""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut

from holdfast.datamodules.decoding import Unreadable, decode
from holdfast.datamodules.formats.dataset import is_dicom

_ROOT = Path(pydicom.__file__).parent / "data" / "test_files"

#: Kinds of file that hold no image that can be read, and their reason.
_REFUSED = {
    "*/DICOMDIR*": "is a DICOMDIR, the index of a disc",
    "*/*/SE000000/*": r"is DICOM without pixels \(CT Image\)",
    "rtplan*.dcm": r"is DICOM without pixels \(RT Plan\)",
    "reportsi*.dcm": r"is DICOM without pixels \(Basic Text SR\)",
    "test-SR.dcm": r"is DICOM without pixels \(Comprehensive SR\)",
    "waveform_ecg.dcm": r"is DICOM without pixels \(12-lead ECG Waveform\)",
    "empty_charset_LEI.dcm": "is DICOM without pixels",
    "no_meta_group_length.dcm": "is DICOM without pixels",
    "priv_SQ.dcm": "is DICOM without pixels",
    "UN_sequence.dcm": "is DICOM without pixels",
    "nested_priv_SQ.dcm": "cannot be decoded: .*Bits Allocated",
    "badVR.dcm": "has a NumberOfFrames that is no number",
    "liver_*1frame.dcm": "describes 3 frames and holds 1",  # cut down for tests
    "meta_missing_tsyntax.dcm": "does not say how it is encoded",
    "MR_truncated.dcm": "cannot be decoded: .*less than expected",
    "JPEG-lossy.dcm": "cannot be decoded",  # nor by pydicom
    "JPEG2000-embedded-sequence-delimiter.dcm": "cannot be decoded",  # nor by pydicom
}

#: What has no mark of DICOM: raw datasets, and files of other kinds.
_NO_MARK = (
    "*NoMeta.dcm",
    "no_meta.dcm",
    "rtstruct.dcm",
    "*.txt",
    "*.json",
    "*.dump",
    "*.icc",
    "*.gz",
    "*README",
)


def _like(path: Path, pattern: str) -> bool:
    return path.relative_to(_ROOT.parent).match(pattern)


_FILES = sorted(path for path in _ROOT.rglob("*") if path.is_file())
_DICOM = [path for path in _FILES if is_dicom(path)]


def test_the_mark_tells_dicom_from_other_files() -> None:
    others = [path for path in _FILES if path not in _DICOM]
    assert all(any(_like(path, pattern) for pattern in _NO_MARK) for path in others)
    assert len(_DICOM) > 100


@pytest.mark.parametrize("path", _DICOM, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_file_is_read_as_pydicom_reads_it(path: Path) -> None:
    reasons = [reason for pattern, reason in _REFUSED.items() if _like(path, pattern)]
    if reasons:
        with pytest.raises(Unreadable, match=f"^(?:{reasons[0]})"):
            decode(path)
        return
    dataset = pydicom.dcmread(path)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(dataset.pixel_array, dataset)
    else:
        expected = apply_modality_lut(dataset.pixel_array, dataset)
    expected = expected * float(dataset.get("DoseGridScaling", 1))
    decoded = decode(path)
    if decoded.turned:  # from axial to RAS
        expected = expected[:, ::-1, ::-1]
    np.testing.assert_allclose(decoded.pixels.reshape(expected.shape), expected, rtol=1e-6)
    assert decoded.pixels.dtype != np.float64
    assert decoded.inverted == (dataset.PhotometricInterpretation == "MONOCHROME1")
