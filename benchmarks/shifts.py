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

from holdfast.datamodules import DATA, ImageSet, Shift, Stream, StreamLoader, load_images
from holdfast.datamodules.shifts import CORRUPTIONS, members
from holdfast.training.config import GROUPS as TRAIN_GROUPS
from holdfast.training.config import TrainConfig
from holdfast.training.run import train
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
    source = config.source or str(_trained(folder / "source", config.seed))
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

    clean, scores = score(None), {}
    for name in tqdm(names, desc="shifts", disable=None):
        scores[name] = [
            clean,
            *(score(Shift(((name, severity),), config.seed)) for severity in SEVERITIES),
        ]
    some = [(str(images.ids[row]), images[int(row)]["image"]) for row in rows[:_TIMED]]
    milliseconds = {
        name: cost(Shift(((name, SEVERITIES[-1]),), config.seed), some) for name in names
    }
    columns = ["shift", *(f"severity {s}" for s in (0, *SEVERITIES)), "milliseconds"]
    lines = [columns, *([name, *values, milliseconds[name]] for name, values in scores.items())]
    (folder / "shifts.csv").write_text(csv_lines(lines), newline="")
    save(curves(scores, 100 / classes), folder / "severity.png")
    shown = images[int(rows[0])]["image"], str(images.ids[rows[0]])
    save(examples(*shown, names, config.seed), folder / "examples.png")
    print(f"balanced accuracy (%) of {source} on {len(rows)} test images, clean {clean}")
    print("\n| shift | 1 | 2 | 3 | 4 | 5 | ms an image |\n|---|---|---|---|---|---|---|")
    for name, values in scores.items():
        print(
            f"| `{name}` | {' | '.join(f'{value:.1f}' for value in values[1:])} | "
            f"{milliseconds[name]:.2f} |"
        )
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
    for (name, values), panel in zip(scores.items(), panels, strict=False):
        panel.axhline(values[0], color=GREY, linestyle="--", linewidth=0.8)
        panel.axhline(chance, color=GREY, linestyle=":", linewidth=0.8)
        panel.plot(SEVERITIES, values[1:], color=BLUE, marker="o", markersize=3)
        panel.set_title(name, fontsize=9)
        panel.set_xticks(SEVERITIES)
        panel.set_ylim(0, 100)
        panel.tick_params(labelsize=7)
    for panel in panels:  # what is left of the last row
        panel.set_visible(False)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("balanced accuracy (%)", fontsize=9)
    return figure


@styled
def examples(image: Tensor, name: str, names: Sequence[str], seed: int) -> Figure:
    """One image, clean and under each shift at severities 1, 3 and 5; of a volume the middle
    slice.
    """
    shown = (1, 3, 5)
    blocks = min(3, len(names))
    rows = -(-len(names) // blocks)
    figure = Figure(
        figsize=(0.75 * blocks * (len(shown) + 1.2), 0.78 * rows + 0.25), layout="constrained"
    )
    grid = figure.subplots(rows, blocks * (len(shown) + 1), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, kind in enumerate(names):
        cells = grid[place % rows, place // rows * (len(shown) + 1) :]
        cells[0].text(
            1, 0.5, kind, ha="right", va="center", fontsize=9, transform=cells[0].transAxes
        )
        for cell, severity in zip(cells[1:], shown, strict=False):
            picture = Shift(((kind, severity),), seed)(image, name)
            picture = picture if picture.dim() == 3 else picture[:, picture.shape[1] // 2]
            colours = picture if len(picture) == 3 else picture[:1].expand(3, -1, -1)
            cell.imshow(colours.permute(1, 2, 0).numpy(), interpolation="nearest")
            if place % rows == 0:
                cell.set_title(severity, fontsize=9)
    return figure


def _trained(folder: Path, seed: int) -> Path:
    """The folder of a source model of the phantom, trained where it is not there yet."""
    if not (folder / "source.ckpt").is_file():
        words = [f"seed={seed}", f"output={folder}", "overwrite=true", "wandb.mode=disabled"]
        train(entry.configured(TrainConfig, TRAIN_GROUPS, words))
    return folder


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(lambda: _run(argv), ShiftsConfig, GROUPS, USAGE, argv, configure=configure)


def _run(argv: Sequence[str]) -> None:
    shifts(configure(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
