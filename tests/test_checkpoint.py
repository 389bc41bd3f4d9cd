"""Checkpoints: whole ones load, also of earlier releases; damaged, tampered and foreign ones are
refused in a sentence.
"""

import contextlib
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.tta.checkpoint import SourceCheckpoint, checksum, load_adapted, save_adapted
from holdfast.tta.errors import InputError
from holdfast.tta.weights import read_weights

Change = Callable[[dict[str, Any]], Any]


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def set_at(*keys: Any, value: Any) -> Change:
    """A change of one entry, deep inside."""

    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def negative_variance(content: dict[str, Any]) -> None:
    name = next(name for name in content["weights"] if name.endswith("running_var"))
    content["weights"][name][0] = -1.0


def first(content: dict[str, Any], key: str) -> str:
    return next(iter(content[key]))


CHANGES: dict[str, tuple[Change, str]] = {
    "no network": (set_at("network", value=None), "its network is not described"),
    "a billion classes": (
        set_at("network", "num_classes", value=10**9),
        "its network has 1000000000 classes, and there are names for 4",
    ),
    "classes without names": (set_at("class_names", value=None), "class_names are no list"),
    "a class twice": (set_at("class_names", value=["a", "b", "c", "a"]), "a class twice"),
    "layers in words": (
        set_at("network", "options", value={"layers": "6"}),
        "more layers than weights",
    ),
    "a list of networks": (set_at("network", "kind", value=["vit"]), "not described"),
    "weights of whole numbers": (
        set_at("weights", "head.bias", value=torch.zeros(4, dtype=torch.long)),
        "head.bias holds torch.int64",
    ),
    "complex weights": (
        set_at("weights", "head.bias", value=torch.zeros(4, dtype=torch.complex64)),
        "head.bias holds torch.complex64",
    ),
    "shares of true and false": (
        set_at("prevalence", value=torch.ones(4, dtype=torch.bool)),
        "prevalence holds torch.bool",
    ),
    "an unknown network": (set_at("network", "kind", value="alexnet"), "no network 'alexnet'"),
    "unknown options": (
        set_at("network", "options", value={"depth": 3}),
        "its network cannot be built",
    ),
    "sides beyond reason": (set_at("network", "size", value=[10**9, 32]), "out of range"),
    "sides that are none": (set_at("network", "size", value=[None]), "out of range"),
    "weights of another network": (set_at("network", "kind", value="vit"), "network"),
    "a weight missing": (lambda c: c["weights"].pop("head.bias"), "head.bias"),
    "a weight misshapen": (
        set_at("weights", "head.bias", value=torch.zeros(5)),
        "head.bias is 5, not 4",
    ),
    "a weight repeated from one number": (
        lambda c: c["weights"].update(
            {"head.weight": torch.zeros(1).expand_as(c["weights"]["head.weight"])}
        ),
        "more values than the file",
    ),
    "a weight that is none": (set_at("weights", "head.bias", value=3), "no tensors"),
    "a weight of NaN": (
        set_at("weights", "head.bias", value=torch.full((4,), float("nan"))),
        "head.bias has values that are no numbers",
    ),
    "a negative variance": (negative_variance, "negative values"),
    "features of another width": (
        set_at("feature_mean", value=torch.zeros(4, 3)),
        "feature_mean is 4x3, not 4x128",
    ),
    "variances of other classes": (
        set_at("feature_var", value=torch.zeros(3, 128)),
        "feature_var is 3x128, not 4x128",
    ),
    "negative class variances": (set_at("feature_var", value=-torch.ones(4, 128)), "feature_var"),
    "a temperature of 0": (set_at("temperature", value=0.0), "temperature"),
    "a range of one value": (set_at("low", value=255.0), "low and high are the same"),
    "a range of NaN": (set_at("high", value=float("nan")), "high is no number"),
    "data without a kind": (set_at("data", value={}), "data has no kind"),
    "Fisher of another layer": (lambda c: c["fisher"].update(x=torch.ones(1)), "a layer x"),
    "Fisher misshapen": (
        lambda c: c["fisher"].update({first(c, "fisher"): torch.ones(1, 1)}),
        "fisher of",
    ),
    "moments misshapen": (
        lambda c: c["layer_moments"].update({first(c, "layer_moments"): torch.ones(2, 4, 1)}),
        "layer_moments of",
    ),
    "a calibration without tails": (set_at("calibration", value={"batches": 3}), "tails"),
    "a calibration of words": (
        set_at("calibration", value={"batches": 3, "tails": {"drift.level": {"start": "a"}}}),
        "drift.level",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_together_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    content = content_of(source / "source.ckpt")
    change(content)
    content["checksum"] = checksum({k: v for k, v in content.items() if k != "checksum"})
    torch.save(content, tmp_path / "source.ckpt")
    started = time.monotonic()
    with pytest.raises(InputError) as refused:
        SourceCheckpoint.load(tmp_path)
    assert time.monotonic() - started < 5
    assert message in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4).to_sparse(), "head.bias is sparse"),
        (torch.zeros(4, device="meta"), "head.bias has no values"),
        # Four terabytes of one number: whatever copies it is killed.
        (torch.zeros(1).expand(10**6, 10**6), "head.bias has more values than the file"),
    ],
)
def test_no_plain_tensor_is_touched(
    source: Path, tmp_path: Path, value: torch.Tensor, message: str
) -> None:
    content = content_of(source / "source.ckpt")
    content["weights"]["head.bias"] = value
    for told in ({"checksum": "0"}, {}):  # that of a file is looked at before the rest is
        content = {key: item for key, item in content.items() if key != "checksum"} | told
        torch.save(content, tmp_path / "source.ckpt")
        with pytest.raises(InputError, match=message):
            SourceCheckpoint.load(tmp_path)


def test_nests_without_end_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for _ in range(400):
        content = {"model": content}
    path = tmp_path / "nest.ckpt"
    torch.save({**content, "format": "holdfast-source", "version": 1, "checksum": "0"}, path)
    with pytest.raises(InputError, match="nested too deeply"):
        SourceCheckpoint.load(path)
    with pytest.raises(InputError, match="holds no state dict"):
        read_weights(path)


def test_a_flipped_byte_is_found(source: Path, tmp_path: Path) -> None:
    whole = (source / "source.ckpt").read_bytes()
    weights = content_of(source / "source.ckpt")["weights"]["head.weight"].numpy().tobytes()
    place = whole.index(weights[:64]) + 2
    for bit in (1, 64):
        damaged = bytearray(whole)
        damaged[place] ^= bit
        (tmp_path / "source.ckpt").write_bytes(damaged)
        with pytest.raises(InputError, match="checksum"):
            SourceCheckpoint.load(tmp_path)


def test_files_of_earlier_releases_still_load(source: Path, tmp_path: Path) -> None:
    content = content_of(source / "source.ckpt")
    for key in ("checksum", "fisher", "layer_moments", "calibration"):
        content.pop(key)
    torch.save(content, tmp_path / "source.ckpt")
    assert SourceCheckpoint.load(tmp_path).hash == SourceCheckpoint.load(source).hash


def test_the_checksum_covers_all(source: Path) -> None:
    content = content_of(source / "source.ckpt")
    seen = {checksum(content)}
    for key in content:
        seen.add(checksum({**content, key: None if content[key] is not None else 1}))
    assert len(seen) == len(content) + 1


def test_adapted_tensors_are_checked_alike(source: Path, tmp_path: Path) -> None:
    checkpoint, path = SourceCheckpoint.load(source), tmp_path / "adapted.ckpt"
    save_adapted(path, checkpoint, "tent", {"layer": torch.ones(3)})
    assert load_adapted(path, checkpoint)["layer"].tolist() == [1, 1, 1]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(torch.ones(3).numpy().tobytes()) + 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="checksum"):
        load_adapted(path, checkpoint)
    for state, message in (
        ({"layer": torch.tensor([float("inf")])}, "no numbers"),
        ({"layer": 3}, "no tensors"),
        (None, "no tensors"),
    ):
        content = {"format": "holdfast-adapted", "version": 1, "state": state}
        torch.save({**content, "source_hash": checkpoint.hash}, path)
        with pytest.raises(InputError, match=message):
            load_adapted(path, checkpoint)


def test_what_another_program_wrote_is_called_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "source.ckpt"
    onnx = b"\x08\x08\x12\x07pytorch\x1a\x062.13.0"
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for content, message in (
        (onnx, "an ONNX model"),
        (struct.pack("<Q", len(header)) + header + bytes(4), "a safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "a TensorFlow Lite model"),
        (b"\x1f\x8b" + bytes(20), "a gzip archive"),
        (b"", "damaged, or not"),
        (b"no checkpoint", "damaged, or not"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            SourceCheckpoint.load(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="a TorchScript archive"):
        SourceCheckpoint.load(path)


def test_a_zip_bomb_is_not_unpacked(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "source.ckpt"
    with zipfile.ZipFile(source / "source.ckpt") as whole, zipfile.ZipFile(path, "w") as packed:
        for entry in whole.infolist():
            content = whole.read(entry)
            large = content + bytes(50_000_000) if entry.filename.endswith("data/0") else content
            packed.writestr(entry.filename, large, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 5_000_000
    with pytest.raises(InputError, match="unpacks to more than its own size"):
        SourceCheckpoint.load(path)


def test_weights_of_other_programs_are_called_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x062.13.0")
    with pytest.raises(InputError, match="is an ONNX model"):
        read_weights(path)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match=r"is a safetensors file.*: weights=FILE adopts it"):
        SourceCheckpoint.load(path)
    torch.save({"a": torch.zeros(10_000_000)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="unpacks to more than its own size"):
        read_weights(tmp_path / "b.pt")


def test_an_archive_whose_directory_is_damaged_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x00\x00", 1))
    with pytest.raises(InputError, match="is damaged, or no file of torch"):
        read_weights(path)


def test_whatever_byte_is_damaged_is_told(source: Path, tmp_path: Path) -> None:
    whole, path = (source / "source.ckpt").read_bytes(), tmp_path / "source.ckpt"
    random = np.random.default_rng(0)
    ends = [*range(1, 90, 7), *(len(whole) - k for k in range(1, 200, 13))]
    for place in [*ends, *random.integers(len(whole), size=15).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert SourceCheckpoint.load(path).hash == SourceCheckpoint.load(source).hash
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged"):
            SourceCheckpoint.load(path)
