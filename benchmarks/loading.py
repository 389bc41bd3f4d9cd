"""Images a second that the loader delivers, against those that an adaptation step consumes.

python -m holdfast.benchmarks.loading [images=512] [size=224] [workers=[0,2]] [model=resnet18]
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from torch import Tensor
from tqdm import tqdm

from holdfast.datamodules import ImageSet, StreamLoader, create_shift
from holdfast.datamodules.decoding import decode
from holdfast.datamodules.folder import FolderConfig, load_folder
from holdfast.datamodules.phantom import CLASSES, SCANNERS, acquire, draw_cells
from holdfast.datamodules.shifts import ShiftConfig
from holdfast.tta import entry
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.networks import MODELS, create_network
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.loading [key=value ...]\n\n"
    "Time the loader alone, and the "
    "Tent step that it feeds."
)

#: Times that one file is decoded to find what that costs.
_DECODINGS = 101


@dataclass
class LoadingConfig:
    """Options of the loading benchmark."""

    images: int = option(512, "files")
    size: int = option(224, "their sides, in pixels")
    format: str = option("png", "of the files: png, jpg, tif, or dcm with the header of a CT")
    batch_size: int = option(64, "images that arrive together")
    workers: list[int] = option([0, 2], "numbers of worker processes to try")
    model: str = option("resnet18", "network of the step")
    shift: str = option("noise", "corruption in the workers; none: none")
    rounds: int = option(3, "passes of each kind; the median counts")

    def __post_init__(self) -> None:
        if (
            min(
                self.images,
                self.size,
                self.batch_size,
                self.rounds,
                1 + min(self.workers, default=-1),
            )
            < 1
        ):
            raise InputError(
                "images, size, batch_size and rounds must be at least 1, workers a list of numbers "
                "from 0"
            )
        if self.model not in MODELS:
            raise InputError(f"unknown model {self.model!r}: {closest(self.model, MODELS)}")


def write_files(folder: Path, config: LoadingConfig) -> None:
    """Cells of the phantom, enlarged, as files in one folder a class."""
    rng = np.random.default_rng(0)
    labels = np.arange(config.images) % len(CLASSES)
    cells = acquire(draw_cells(labels, rng), SCANNERS["scanner_a"], rng)
    for number, (label, cell) in enumerate(zip(labels.tolist(), cells, strict=True)):
        path = folder / CLASSES[label] / f"{number:06d}.{config.format}"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(cell).resize((config.size,) * 2, Image.Resampling.BICUBIC)
        if config.format == "dcm":
            write_ct(path, np.asarray(image.convert("L")))
        else:
            image.save(path)


def write_ct(path: Path, pixels: npt.NDArray[Any]) -> None:
    """A picture of 8 bits as a CT image, with the header of the scanner's file that pydicom
    brings.
    """
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = (pixels.astype(np.int16) * 8).tobytes()
    dataset.WindowCenter, dataset.WindowWidth = 0, 2000
    dataset.save_as(path)


def decoding_cost(path: Path) -> tuple[float, float]:
    """CPU seconds, the median of many, that a DICOM file takes here and with pydicom alone."""

    def here() -> object:
        return decode(path)

    def alone() -> object:
        return pydicom.dcmread(path).pixel_array

    times: dict[Callable[[], object], list[float]] = {here: [], alone: []}
    for _ in range(_DECODINGS):  # by turns, so that what else goes on meets both
        for way, spent in times.items():
            start = process_time()
            way()
            spent.append(process_time() - start)
    return float(np.median(times[here])), float(np.median(times[alone]))


def rate(batches: Iterable[dict[str, Any]]) -> float:
    """Images a second of one pass."""
    start, count = perf_counter(), 0
    for batch in batches:
        count += len(batch["image"])
    return count / (perf_counter() - start)


def step_rate(images: ImageSet, config: LoadingConfig, device: torch.device) -> float:
    """Images a second of Tent's steps on tensors that are already there."""
    network = create_network(
        config.model,
        MODELS[config.model](),
        num_classes=len(CLASSES),
        channels=images.channels,
        size=images.size,
    )[0]
    method = create_method(
        "tent", network.to(device), num_classes=len(CLASSES), optimizer="adam", lr=1e-3
    )
    rows = np.arange(min(len(images), config.batch_size))
    batch: Tensor = images.batch(rows)["image"].to(device)

    def passes(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            method(batch).cpu()
        return perf_counter() - start

    steps = -(-len(images) // len(rows))
    passes(2)  # warm up
    return (
        steps * len(rows) / sorted(passes(steps) for _ in range(config.rounds))[config.rounds // 2]
    )


def measure(config: LoadingConfig) -> tuple[dict[str, float], float]:
    """Images a second of each way to load, and of the step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = None if config.shift == "none" else ShiftConfig()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), config)
        window = None
        if config.format == "dcm":
            window = "file"
            here, alone = decoding_cost(next(Path(folder).rglob("*.dcm")))
            print(f"decoding takes {1e3 * here:.2f} ms of CPU, {here / alone:.2f} of pydicom's own")
        ways: dict[str, float] = {}
        cases = [(cache, workers) for cache in (0.0, 64.0) for workers in config.workers]
        for cache, workers in tqdm(cases, desc="loading", unit="way", disable=None):
            files = FolderConfig(root=folder, cache=cache, check=cache > 0, window=window)
            images = load_folder(files, "target")
            if options is not None:
                images = images.transformed(create_shift(config.shift, options))
            loader = StreamLoader(images, np.arange(len(images)), config.batch_size, workers)
            rates = sorted(rate(loader) for _ in range(config.rounds))
            ways[f"{'cached' if cache else 'decoded'}, {workers} workers"] = rates[
                config.rounds // 2
            ]
        return ways, step_rate(images, config, device)


def loading(config: LoadingConfig) -> None:
    """Measure, and print a table."""
    ways, step = measure(config)
    name = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"{config.images} {config.format} files of {config.size}x{config.size}, shift "
        f"{config.shift}, batch {config.batch_size}"
    )
    print(f"  {f'Tent step, {config.model}, {name}':<44}{step:10.0f} images/s")
    for way, found in ways.items():
        print(f"  {way:<44}{found:10.0f} images/s, {found / step:.2f} of what the step takes")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: loading(entry.configured(LoadingConfig, {}, argv)), LoadingConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
