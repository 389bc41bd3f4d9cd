"""What each shift costs a source model at each severity: a table, its curves, and a sheet of
shifted images.

python -m holdfast.benchmarks.shifts [source=DIR_OR_CKPT] [shifts=mr] [images=1000]
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from holdfast.benchmarks.pages import table
from holdfast.benchmarks.sources import train_model, training_words
from holdfast.callbacks.report.page import as_picture
from holdfast.datamodules import DATA, ImageSet, Shift, Stream, StreamLoader, load_images
from holdfast.datamodules.shifts import CORRUPTIONS, members
from holdfast.tta import entry
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.csvfile import csv_lines
from holdfast.tta.errors import InputError
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.options import option
from holdfast.tta.source import evaluate
from holdfast.tta.style import BLUE, GREY, save, styled

GROUPS = {"data": DATA}
#: Images by which the time of a shift is taken.
_TIMED = 16
USAGE = (
    "usage: python -m holdfast.benchmarks.shifts [key=value ...]\n\n"
    "Score a source model on its test "
    "images under every shift."
)
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass
class ShiftsConfig:
    """Options of the shifts' benchmark."""

    data: Any = option("phantom", "data set of the test images; by default the source's")
    source: str | None = option(
        None, "source checkpoint, or the folder of one; null: one is trained on the phantom"
    )
    shifts: str | list[str] | None = option(
        None, "shifts or families; null: all that suit the images"
    )
    images: int = option(1000, "test images, drawn at random where there are more")
    seed: int = option(0, "seed of the draw, of the shifts, and of a source that is trained")
    output: str = option("runs/shifts", "folder of the results")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError("images must be at least 1")


def configure(argv: Sequence[str]) -> ShiftsConfig:
    """The configuration of command-line words; what they leave open of the data is as in the source
    checkpoint.
    """
    source = read_arguments(argv, GROUPS).get("source")
    base = {"data": SourceCheckpoint.load(source).data} if source is not None else {}
    return resolve(ShiftsConfig, GROUPS, read_arguments(argv, GROUPS, base))


def shifts(config: ShiftsConfig) -> dict[str, list[float]]:
    """Measure, and write ``shifts.csv``, ``severity.png`` and ``examples.png``.

    Returns:
        Balanced accuracy in percent of each shift at severities 0 (clean) to 5.
    """
    folder = Path(config.output).expanduser()
    source = config.source or str(folder / "source")
    if config.source is None and not (folder / "source" / "source.ckpt").is_file():
        train_model(training_words(config.seed, folder / "source"))
    checkpoint = SourceCheckpoint.load(source)
    images = load_images(config.data.kind, config.data.options, "test")
    images = replace(images, low=checkpoint.low, high=checkpoint.high)
    if not images.labelled:
        raise InputError(
            "the test images have no labels, and so no score: choose another data set, data=NAME"
        )
    names = chosen(config.shifts, images)
    entry.output_folder(config.output, config, "python -m holdfast.benchmarks.shifts")
    rows = np.random.default_rng(config.seed).permutation(len(images))[: config.images]
    network, classes = checkpoint.build(), len(checkpoint.class_names)

    def score(shift: Shift | None) -> float:
        result = evaluate(network, StreamLoader(images, Stream(rows, (shift,)), 256), classes)
        return round(balanced_accuracy(result.logits.argmax(1), result.labels, classes), 1)

    clean, lines = score(None), []
    some = [(str(images.ids[row]), images[int(row)]["image"]) for row in rows[:_TIMED]]
    for name in tqdm(names, desc="shifts", disable=None):
        steps = [Shift(((name, severity),), config.seed) for severity in SEVERITIES]
        lines.append([name, *map(score, steps), cost(steps[-1], some)])
    scores = {name: [clean, *values] for name, *values, _ in lines}
    columns = ["shift", *(f"severity {s}" for s in (0, *SEVERITIES)), "milliseconds"]
    listed = [[name, clean, *rest] for name, *rest in lines]
    (folder / "shifts.csv").write_text(csv_lines([columns, *listed]), newline="")
    save(curves(scores, 100 / classes), folder / "severity.png")
    shown = images[int(rows[0])]["image"]
    sheet = examples(shown, str(images.ids[rows[0]]), names, config.seed)
    save(sheet, folder / "examples.png")
    print(f"balanced accuracy (%) of {source} on {len(rows)} test images, clean {clean}\n")
    texts = [
        [f"`{name}`", *(f"{value:.1f}" for value in values), f"{milliseconds:.2f}"]
        for name, *values, milliseconds in lines
    ]
    print(table(["shift", *map(str, SEVERITIES), "ms an image"], texts))
    return scores


def cost(shift: Shift, images: Sequence[tuple[str, Tensor]]) -> float:
    """Milliseconds that a shift takes for an image, the median; of this thread alone, since the
    machine may be busy.

    Args:
        shift: to be timed.
        images: ids and images.
    """
    seconds = []
    for name, image in images:
        start = time.thread_time()
        shift(image, name)
        seconds.append(time.thread_time() - start)
    return 1000 * median(seconds)


def chosen(names: str | Sequence[str] | None, images: ImageSet) -> list[str]:
    """The shifts asked for, families written out; by default all that suit the images.

    Raises:
        InputError: an unknown shift, or one that does not suit them.
    """
    if names is None:
        return [
            name
            for name, corruption in CORRUPTIONS.items()
            if corruption.fits(images.channels, len(images.size))
        ]
    asked = list(dict.fromkeys(members(names)))
    Shift(tuple((name, 1) for name in asked)).check(images.channels, len(images.size))
    return asked


@styled
def curves(scores: Mapping[str, Sequence[float]], chance: float) -> Figure:
    """Balanced accuracy against severity, a panel a shift; dashed: clean, dotted: chance."""
    columns = min(6, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.35 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for panel in panels[len(scores) :]:  # what is left of the last row
        panel.set_visible(False)
    for (name, values), panel in zip(scores.items(), panels, strict=False):
        for level, line in ((values[0], "--"), (chance, ":")):
            panel.axhline(level, color=GREY, linestyle=line, linewidth=0.8)
        panel.plot(SEVERITIES, values[1:], color=BLUE, marker="o", markersize=3)
        panel.set_title(name, fontsize=9)
        panel.set_xticks(SEVERITIES)
        panel.set_ylim(0, 100)
        panel.tick_params(labelsize=7)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("balanced accuracy (%)", fontsize=9)
    return figure


@styled
def examples(image: Tensor, name: str, names: Sequence[str], seed: int) -> Figure:
    """One image, clean and under each shift at severities 1, 3 and 5; of a volume the middle
    slice.
    """
    shown = (1, 3, 5)
    blocks, width = min(3, len(names)), len(shown) + 1
    rows = -(-len(names) // blocks)
    size = (0.75 * blocks * (width + 0.2), 0.78 * rows + 0.25)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, blocks * width, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, kind in enumerate(names):
        head, *cells = grid[place % rows, place // rows * width :][:width]
        head.text(1, 0.5, kind, ha="right", va="center", fontsize=9, transform=head.transAxes)
        for cell, severity in zip(cells, shown, strict=True):
            shifted = Shift(((kind, severity),), seed)(image, name).numpy()
            cell.imshow(as_picture(shifted, stretch=False), "gray", vmin=0, vmax=255)
            if place % rows == 0:
                cell.set_title(severity, fontsize=9)
    return figure


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        shifts(configure(argv))

    return entry.run(run, ShiftsConfig, GROUPS, USAGE, argv, configure=configure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
