"""Scans of another site as files, for a service or a DICOM node to be tried with.

python examples/draw_scans.py

The embedded cells, as one of the scanners sees them: each as a PNG and as a DICOM file.
``count=48`` says how many, ``scanner=scanner_c`` of which scanner.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from holdfast.datamodules import load_images
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.tta import entry
from holdfast.tta.options import option

USAGE = "usage: python examples/draw_scans.py [key=value ...]\n\nDraw scans as PNG and DICOM files."


@dataclass
class ExampleConfig:
    """Options of the example."""

    count: int = option(48, "scans to draw")
    scanner: str = option("scanner_c", "scanner that sees them")
    output: str = option("runs/examples/scans", "folder of the files")


def draw(config: ExampleConfig) -> None:
    """Write the files."""
    given = PhantomConfig(target=config.scanner, target_images=config.count)
    png, dicom = Path(config.output) / "png", Path(config.output) / "dicom"
    for folder in (png, dicom):
        folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(np.asarray(load_images("phantom", given, "target").images)):
        Image.fromarray(pixels).save(png / f"scan-{number:03}.png")
        write_dicom(dicom / f"scan-{number:03}.dcm", pixels, f"scan-{number:03}")
    print(f"drawn: {config.count} scans in {png} and in {dicom}")


def write_dicom(path: Path, pixels: Any, patient: str) -> None:
    """A file as a camera's export has it: secondary capture, RGB, 8 bits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    file.PatientID, file.PatientName = patient, patient
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel, file.PlanarConfiguration = 3, 0
    file.PhotometricInterpretation = "RGB"
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    file.PixelRepresentation = 0
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: draw(entry.configured(ExampleConfig, {}, argv)), ExampleConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
