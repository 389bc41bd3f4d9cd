"""Two sites' fields of cells as files: images with masks, or with a table of findings.

python examples/draw_fields.py

``here`` is seen by one scanner, ``there`` by another. Each has images and masks, PNGs of the same
names. With ``findings=true`` each has images, and beside it a table says which kinds of cells each
image shows.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from holdfast.datamodules import ImageSet, load_images
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.tta import entry
from holdfast.tta.options import option

USAGE = "usage: python examples/draw_fields.py [key=value ...]\n\nDraw two sites' fields of cells."
#: Splits of the phantom that become the sites.
_SITES = {"here": "train", "there": "target"}


@dataclass
class ExampleConfig:
    """Options of the example."""

    findings: bool = option(False, "a table of findings in place of masks")
    here: int = option(320, "images of the first site")
    there: int = option(160, "images of the second")
    output: str | None = option(None, "folder of the files; null: runs/examples/masks, or findings")


def draw(config: ExampleConfig) -> None:
    """Write the files."""
    kind = "findings" if config.findings else "masks"
    output = Path(config.output or f"runs/examples/{kind}")
    task = "multilabel" if config.findings else "segmentation"
    given = PhantomConfig(task=task, train_images=config.here, target_images=config.there)
    for site, split in _SITES.items():
        images = load_images("phantom", given, split)
        if config.findings:
            write_table(images, output / site)
        else:
            write_masks(images, output / site)
    print(f"drawn: {output / 'here'} and {output / 'there'}, with {kind}")


def write_masks(images: ImageSet, folder: Path) -> None:
    """An image and a mask each, whose values are the classes."""
    for number in range(len(images)):
        one, name = images[number], f"{number:04}.png"
        save(one["image"].permute(1, 2, 0).numpy() * 255, folder / "images" / name)
        save(one["mask"].numpy(), folder / "masks" / name)


def write_table(images: ImageSet, folder: Path) -> None:
    """Images, and a row for each that says what is found in it: 1 or 0."""
    rows = []
    for number in range(len(images)):
        one, name = images[number], f"{number:04}.png"
        save(one["image"].permute(1, 2, 0).numpy() * 255, folder / name)
        rows.append([f"{folder.name}/{name}", *one["findings"].int().tolist()])
    with folder.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", *images.class_names], *rows])


def save(pixels: np.ndarray, path: Path) -> None:
    """Write pixels as bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: draw(entry.configured(ExampleConfig, {}, argv)), ExampleConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
