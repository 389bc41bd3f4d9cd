"""What each shift costs a source model at each severity: a table, and its curves.

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
from holdfast.benchmarks.script import script
from holdfast.benchmarks.sources import train_model, training_words
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


def shifts(config: ShiftsConfig) -> str:
    """Measure, write ``shifts.csv`` and ``severity.png``, and return the table."""
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

    clean = score(None)
    some = [(str(images.ids[row]), images[int(row)]["image"]) for row in rows[:_TIMED]]
    scores: dict[str, list[float]] = {}
    lines = []
    for name in tqdm(names, desc="shifts", disable=None):
        steps = [Shift(((name, severity),), config.seed) for severity in SEVERITIES]
        scores[name] = [clean, *map(score, steps)]
        lines.append([name, *(f"{value:.1f}" for value in scores[name]), cost(steps[-1], some)])
    columns = ["shift", *(f"severity {s}" for s in (0, *SEVERITIES)), "milliseconds"]
    (folder / "shifts.csv").write_text(csv_lines([columns, *lines]), newline="")
    save(curves(scores, 100 / classes), folder / "severity.png")
    shown = [[f"`{name}`", *values] for name, *values in lines]
    text = table(["shift", "0", *map(str, SEVERITIES), "ms an image"], shown)
    told = f"balanced accuracy (%) of {source} on {len(rows)} test images; severity 0 is clean"
    return f"{told}\n\n{text}"


def cost(shift: Shift, images: Sequence[tuple[str, Tensor]]) -> str:
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
    return f"{1000 * median(seconds):.3g}"


def chosen(names: str | Sequence[str] | None, images: ImageSet) -> list[str]:
    """The shifts asked for, families written out; by default all that suit the images.

    Raises:
        InputError: an unknown shift, or one that does not suit them.
    """
    of_images = (images.channels, len(images.size))
    if names is None:
        return [name for name, corruption in CORRUPTIONS.items() if corruption.fits(*of_images)]
    asked = list(dict.fromkeys(members(names)))
    Shift(tuple((name, 1) for name in asked)).check(*of_images)
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
        panel.axhline(values[0], color=GREY, linestyle="--", linewidth=0.8)
        panel.axhline(chance, color=GREY, linestyle=":", linewidth=0.8)
        panel.plot(SEVERITIES, values[1:], color=BLUE, marker="o", markersize=3)
        panel.set_title(name, fontsize=9)
        panel.set_ylim(0, 100)
        panel.tick_params(labelsize=7)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("balanced accuracy (%)", fontsize=9)
    return figure


main = script(ShiftsConfig, shifts, GROUPS, configure)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
