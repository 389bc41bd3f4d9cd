"""What a run adapted, in plain torch: no Holdfast where it is used.

python examples/use_export.py

``network`` is a torch network of your own. It is trained on drawn cells, adapted to another
scanner, and written twice, by ``export=``: as safetensors, whose weights go back into ``network``,
and as a program of ``torch.export``, which needs neither the network's code nor a scaling. What
``classify`` and ``run_program`` say is held against each other and against the file's provenance.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import holdfast

QUIET = {"trainer": {"enable_progress_bar": False}, "wandb": {"mode": "disabled"}}


def network(num_classes: int, channels: int) -> nn.Sequential:
    """Yours."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


def read_header(file: Path) -> dict[str, str]:
    """Where a safetensors file says it comes from."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    told: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return told


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, as ``safetensors.torch.load_file`` reads them."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    types = {"F32": torch.float32, "I64": torch.int64}
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (start + place for place in entry["data_offsets"])
            values = torch.frombuffer(bytearray(content[begin:end]), dtype=types[entry["dtype"]])
            weights[name] = values.reshape(entry["shape"])
    return weights


def classify(file: Path, images: Tensor) -> Tensor:
    """Logits by weights alone: images (N, channels, ...) in 0..1 are standardised first."""
    facts = json.loads(Path(f"{file}.json").read_text())
    model = network(len(facts["classes"]), facts["channels"])
    model.load_state_dict(read_weights(file))
    mean, std = (torch.tensor(facts[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        return model.eval()((images - mean) / std)


def run_program(file: Path, images: Tensor) -> Tensor:
    """Logits by a program, which does all of it."""
    with torch.no_grad():
        logits: Tensor = torch.export.load(file).module()(images)
        return logits


def main(folder: Path) -> float:
    """Train, adapt, export twice; print and return how far the two are apart."""
    data = {"kind": "phantom", "train_images": 300, "val_images": 100, "test_images": 50}
    source = holdfast.train(
        data=data,
        model=f"{__file__}:network",
        epochs=2,
        calibrate="off",
        output=folder / "source",
        **QUIET,
    )
    weights, program = folder / "theirs.safetensors", folder / "theirs.pt2"
    for file in (weights, program):
        holdfast.adapt(
            source=source.folder,
            model=f"{__file__}:network",
            method={"kind": "tent", "normalization": "source"},
            guard="off",
            data={"target_images": 128},
            export=str(file),
            output=folder / file.suffix[1:],
            **QUIET,
        )
    for name, value in read_header(weights).items():
        print(f"{name:10}{value}")
    facts = json.loads(Path(f"{weights}.json").read_text())
    images = torch.rand(5, facts["channels"], *facts["size"])
    apart = float((classify(weights, images) - run_program(program, images)).abs().max())
    print(f"weights and program agree to {apart:.0e}")
    return apart


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
