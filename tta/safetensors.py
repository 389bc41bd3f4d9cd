"""Files of tensors and nothing else, as Hugging Face publishes weights: safetensors, read and
written.

A file is the length of a header (8 bytes, little-endian), the header (JSON: type, shape and place
of each tensor) and the values. It holds no code.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Types by the names of the format.
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: Bytes of a header beyond which none is one: a name and a place take some hundred.
_LONGEST = 100 * 2**20


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name.

    Raises:
        ValueError: it is no such file, or is cut off; the words say which.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(_LONGEST, len(content) - 8):
        raise ValueError("its header is longer than the file")
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header names no tensors")
    values = memoryview(content)[8 + length :]
    named = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {name: _tensor(name, entry, values) for name, entry in named.items()}


def _tensor(name: str, entry: Any, values: memoryview) -> Tensor:
    try:
        kind, shape = _TYPES[entry["dtype"]], [int(side) for side in entry["shape"]]
        begin, end = (int(place) for place in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is of a type or form that is not known") from error
    size = math.prod(shape) * kind.itemsize
    if min([0, *shape]) < 0 or not 0 <= begin <= end <= len(values) or end - begin != size:
        raise ValueError(f"{name} is not whole")
    if not size:
        return torch.zeros(shape, dtype=kind)
    # Copied, so that tensors neither share the file's memory nor lie askew in it.
    flat = torch.frombuffer(bytearray(values[begin:end]), dtype=torch.uint8)
    return flat.view(kind).reshape(shape)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, largest types first as the format asks, and words about them.

    Args:
        path: the file.
        tensors: by name.
        metadata: words that readers show.

    Raises:
        OSError: the disk takes no more.
    """
    names = {kind: name for name, kind in _TYPES.items()}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name, value in ordered:
        end = place + value.numel() * value.element_size()
        entry = {"dtype": names[value.dtype], "shape": list(value.shape)}
        header[name] = {**entry, "data_offsets": [place, end]}
        place = end
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        for _, value in ordered:
            flat = value.detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().tobytes())
