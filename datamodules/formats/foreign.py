"""Files of kinds that are not read: what they are, and what to do with them."""

from pathlib import Path

from holdfast.datamodules.formats.dicom import is_dicom

_SLIDE = "a whole-slide image: cut it into patches, as PNG or TIFF, with QuPath or OpenSlide"
_PICTURE = "a picture of a kind that is not read: convert it to PNG, as Pillow can"
_VOLUME = "a volume of a kind that is not read: convert it to NIfTI, as SimpleITK can"
_BRAIN = "a volume of a kind that is not read: convert it to NIfTI, as nibabel can"
_ARRAY = "an array: read it by data=npz, as images in an .npz file"

_BY_SUFFIX = {
    **dict.fromkeys((".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi"), _SLIDE),
    **dict.fromkeys(
        (".webp", ".gif", ".jp2", ".j2k", ".jpx", ".heic", ".avif", ".ppm", ".pgm"), _PICTURE
    ),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr", ".vtk"), _VOLUME),
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".par", ".rec", ".hdr", ".img", ".brik"), _BRAIN),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".mat", ".pt", ".zarr"), _ARRAY),
}

#: What files of a kind begin with, and what that kind is.
_BY_START = (
    (b"\x89PNG\r\n\x1a\n", "a damaged PNG file: copy it again"),
    (b"\xff\xd8\xff", "a damaged JPEG file: copy it again"),
    (b"II*\0", "a TIFF file of a kind that Pillow does not read: write it as PNG or NIfTI"),
    (b"MM\0*", "a TIFF file of a kind that Pillow does not read: write it as PNG or NIfTI"),
    (b"II+\0", "a BigTIFF file, as whole slides are: cut it into patches, as PNG or TIFF"),
    (b"RIFF", _PICTURE),
    (b"GIF8", _PICTURE),
    (b"\0\0\0\x0cjP  ", _PICTURE),
    (b"\xff\x4f\xff\x51", _PICTURE),
    (b"NRRD", _VOLUME),
    (b"ObjectType", _VOLUME),
    (b"\x93NUMPY", _ARRAY),
    (b"\x1f\x8b", "a gzip archive: unpack it, or name it .nii.gz if it is NIfTI"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: git lfs pull"),
)


def what_it_is(path: Path) -> str:
    """What a file is that no reader takes, and what to do with it; it follows the file's name.

    It goes by the suffix, then by the first bytes.
    """
    known = _BY_SUFFIX.get(path.suffix.lower())
    if known is not None:
        return f"is {known}"
    if is_dicom(path):
        return "is DICOM under another suffix: name it .dcm"
    with path.open("rb") as file:
        return what_begins(file.read(32))


def what_begins(start: bytes) -> str:
    """The same by the first 32 bytes alone."""
    for letters, kind in _BY_START:
        if start.startswith(letters):
            return f"is {kind}"
    return "is no image, or damaged: its first bytes are of no kind that is read"
