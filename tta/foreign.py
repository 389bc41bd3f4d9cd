"""What a file is that is none of ours, and whether it is safe to open: told from its first
bytes.
"""

import struct
import zipfile
from pathlib import Path

#: Bytes that are looked at.
_HEAD = 64
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
    b"GGUF": "a GGUF file",
}


def kind_of(path: Path) -> str | None:
    """What a file of another program is, by its content; None where nothing is known of it."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if _is_safetensors(head, path.stat().st_size):
        return "a safetensors file, of weights alone: weights=FILE adopts it"
    # The first field of an ONNX model is its version, a small number; the next ones are texts.
    if len(head) > 3 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x1A, 0x3A):
        return (
            "an ONNX model, which holds a graph and no network to train: give the weights it "
            "was exported from"
        )
    return _kind_of_archive(path)


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of tensors alone, as Hugging Face publishes weights."""
    with path.open("rb") as file:
        return _is_safetensors(file.read(_HEAD), path.stat().st_size)


def _is_safetensors(head: bytes, size: int) -> bool:
    # A header of JSON behind its length, 8 bytes.
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= size


def unpacks_to_more(path: Path) -> bool:
    """Whether a zip archive holds more than its own size, which none that torch wrote does."""
    return sum(entry.file_size for entry in _entries(path)) > path.stat().st_size


def _kind_of_archive(path: Path) -> str | None:
    names = [entry.filename for entry in _entries(path)]
    if not names:
        return None
    if any("/code/" in name for name in names):
        return (
            "a TorchScript archive, which holds code: save the state dict of the module that it "
            "was made from"
        )
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive: unpack it, and name what is in it (of a MONAI bundle its folder)"
    return None


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """What a zip archive lists; nothing where it is none, or so damaged that it cannot be
    listed.
    """
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return []
