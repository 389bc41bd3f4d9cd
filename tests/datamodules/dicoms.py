"""DICOM files that tests write with pydicom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset, uid

Pixels = np.ndarray[Any, Any]


def dataset_of(pixels: Pixels, *, bits: int = 16, sop: str = "", **more: Any) -> Dataset:
    """A file of one frame, (H, W) or (H, W, 3); attributes of value None are left out."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop or uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    colour = pixels.ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if pixels.dtype.kind != "f":
        dataset.BitsAllocated = 8 * pixels.itemsize
        dataset.BitsStored = min(bits, 8 * pixels.itemsize)
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes()
    for key, value in more.items():
        setattr(dataset, key, value)
    return dataset


def write_dicom(path: Path, pixels: Pixels, *, bits: int = 16, **more: Any) -> Path:
    """Write a file of one frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset_of(pixels, bits=bits, **more).save_as(path, enforce_file_format=True)
    return path


def item(**attributes: Any) -> Dataset:
    """A dataset within another."""
    dataset = Dataset()
    for key, value in attributes.items():
        setattr(dataset, key, value)
    return dataset


def table(first: int, entries: Pixels, depth: int) -> list[Dataset]:
    """A sequence of one lookup table."""
    dataset = item()
    dataset.add_new("LUTDescriptor", "US", [len(entries) % 2**16, first, depth])
    dataset.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return [dataset]


def write_frames(
    path: Path,
    frames: Pixels,
    own: Sequence[dict[str, list[Dataset]]] = (),
    shared: dict[str, list[Dataset]] | None = None,
    **more: Any,
) -> Path:
    """A file of several frames.

    Args:
        path: the file.
        frames: (N, H, W).
        own: functional groups of each frame.
        shared: functional groups of all.
        more: attributes of the file.
    """
    if own:
        more["PerFrameFunctionalGroupsSequence"] = [item(**groups) for groups in own]
    if shared:
        more["SharedFunctionalGroupsSequence"] = [item(**shared)]
    dataset = dataset_of(frames[0], **more)
    dataset.NumberOfFrames = len(frames)
    if dataset.BitsAllocated == 1:
        dataset.PixelData = np.packbits(frames.astype(bool), axis=None, bitorder="little").tobytes()
        dataset.PixelData += b"\0" * (len(dataset.PixelData) % 2)
    else:
        dataset.PixelData = frames.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def position(*values: float) -> list[Dataset]:
    """The functional group of a frame's position."""
    return [item(ImagePositionPatient=[f"{value:.8g}" for value in values])]


def measures(rows: float, columns: float, **more: Any) -> list[Dataset]:
    """The functional group of a frame's distances."""
    return [item(PixelSpacing=[rows, columns], **more)]


AXIAL = [1, 0, 0, 0, 1, 0]


def write_series(folder: Path, slices: Pixels, step: float = 2.0, **more: Any) -> Path:
    """An axial series (N, H, W) upwards, whose files' names, numbers and places have other
    orders.
    """
    series = uid.generate_uid()
    for place, pixels in enumerate(slices):
        attributes: dict[str, Any] = {
            "SeriesInstanceUID": series,
            "PatientID": "one",
            "InstanceNumber": len(slices) - place,
            "ImagePositionPatient": [0, 0, step * place],
            "ImageOrientationPatient": AXIAL,
            "PixelSpacing": [0.5, 0.75],
        }
        for key, value in more.items():
            attributes[key] = value[place] if isinstance(value, dict) else value
        attributes = {key: value for key, value in attributes.items() if value is not None}
        write_dicom(folder / f"IM{place * 7 % 11:04d}", pixels, **attributes)
    return folder
