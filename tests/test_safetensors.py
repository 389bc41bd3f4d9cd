"""Tensors in safetensors files: read and written, as the format's own library does."""

import json
from pathlib import Path

import pytest
import torch

from holdfast.tta.errors import InputError
from holdfast.tta.safetensors import read_safetensors, write_safetensors
from holdfast.tta.weights import read_weights
from tests.peers import peer

_TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([[3.0]], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False, True]),
    "nothing": torch.zeros(0, 4),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_safetensors(path, _TENSORS, {"format": "pt"})
    for found in (read_safetensors(path), read_weights(path)):
        assert found.keys() == _TENSORS.keys()
        for name, value in _TENSORS.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_the_formats_own_library_agrees(tmp_path: Path) -> None:
    theirs = peer("safetensors.torch")
    write_safetensors(tmp_path / "ours", _TENSORS, {"format": "pt"})
    theirs.save_file(_TENSORS, tmp_path / "theirs")
    for found in (theirs.load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")):
        assert found.keys() == _TENSORS.keys()
        for name, value in _TENSORS.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_safetensors(path, _TENSORS)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["weight"]["shape"] = [10**9, 10**9]
    huge = json.dumps(header).encode()
    cases = [
        (whole[:-1], "is not whole"),
        (whole[:20], "not whole|header"),
        (whole[:8] + b"{" * length + whole[8 + length :], "not JSON"),
        (len(huge).to_bytes(8, "little") + huge + whole[8 + length :], "weight is not whole"),
        (whole.replace(b'"BF16"', b'"QF16"'), "brain is of a type"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_safetensors(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"is damaged, count is not whole|flags is not whole"):
        read_weights(path)
