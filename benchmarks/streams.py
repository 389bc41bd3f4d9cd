"""The table of docs/streams.md, and its pictures: each stream drawn, class over position.

python -m holdfast.benchmarks.streams [output=docs]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.benchmarks.pages import table, write_page
from holdfast.datamodules import STREAMS, ImageSet, Stream, create_shift, create_stream, load_images
from holdfast.tta import entry
from holdfast.tta.options import option
from holdfast.tta.style import AMBER, BLUE, save, styled

WRITER = "holdfast.benchmarks.streams"
USAGE = (
    f"usage: python -m {WRITER} [key=value ...]\n\nWrite the page of streams and draw its pictures."
)


class Example(NamedTuple):
    """A stream to draw: its picture's name, the words that ask for it, and what is to be said of
    it.
    """

    picture: str
    words: str
    text: str


_TWO = "data.target=[scanner_b,scanner_c]"
_RARE = "stream=prevalence stream.label=0 stream.fraction=0.7"
_VECTOR = "stream=prevalence stream.prevalence=[.5,.3,.2,0]"
_TURN = "another class is the frequent one from the middle on"
_MANY = "shifts, or a modality's family, one after the other"
_TIMES = f"stream=recurring stream.times=3 {_TWO}"
EXAMPLES = (
    Example("iid", "stream=iid", "every image once, shuffled"),
    Example("prevalence", _RARE, "one class at a given share"),
    Example("switch", "stream=prevalence stream.then=2", _TURN),
    Example("vector", _VECTOR, "any vector of shares; drawn with replacement"),
    Example("blocks", "stream=blocks stream.blocks=2", "class after class, each in so many blocks"),
    Example("together", "stream=blocks stream.together=2", "the same, so many classes at a time"),
    Example(
        "dirichlet",
        "stream=dirichlet stream.delta=0.1",
        "classes correlated in time; the smaller δ, the more so",
    ),
    Example("continual", f"stream=continual {_TWO}", "the target's domains, one after the other"),
    Example("shifts", "stream=continual stream.shifts=mr", _MANY),
    Example("recurring", _TIMES, "domains or shifts again and again"),
    Example(
        "gradual", "stream=gradual shift=noise", "severity rises step by step, and falls again"
    ),
    Example(
        "mixed",
        "stream=mixed stream.shifts=[noise,blur]",
        "domains or shifts in one shuffled stream",
    ),
    Example(
        "time", "stream=time stream.column=time", "the real order, by a column of the metadata"
    ),
    Example(
        "replay",
        "stream=replay stream.path=FILE.csv",
        "the items of a saved stream, or of any table of ids",
    ),
)


@dataclass
class StreamsConfig:
    """Options of the page of streams."""

    output: str = option("docs", "folder of streams.md; the pictures lie in streams/ below it")
    images: int = option(320, "images of a stream's target")


def streams(config: StreamsConfig) -> None:
    """Write page and pictures."""
    folder = Path(config.output).expanduser() / "streams"
    folder.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        if example.picture != "replay":
            images, stream = made(example.words.split(), config.images)
            save(draw(images, stream), folder / f"{example.picture}.png")
    write_page(folder.parent / "streams.md", markdown(), WRITER)


def markdown() -> str:
    """The table."""
    lines = []
    for name in STREAMS:
        for example in EXAMPLES:
            if f"stream={name}" in example.words.split():
                picture = f"![{example.text}](streams/{example.picture}.png)"
                shown = "–" if name == "replay" else picture
                lines.append([f"`{name}`: {example.text}", f"`{example.words}`", shown])
    head = ["stream", "words after `python adapt.py source=DIR_OR_CKPT`", "picture"]
    return table(head, lines, texts=len(head))


def made(words: Sequence[str], count: int) -> tuple[ImageSet, Stream]:
    """The phantom's images, with a time by which classes drift, and the stream over them that the
    words ask for.
    """
    base = {"data": {"kind": "phantom", "target_images": count}}
    config = entry.configured(AdaptConfig, GROUPS, words, base)
    images = load_images("phantom", config.data.options, "target")
    hours = images.labels * 8 + 10 * np.random.default_rng(0).standard_normal(len(images))
    shift = create_shift(config.shift.kind, config.shift.options)
    images = replace(images, transform=shift, metadata={"time": hours})
    return images, create_stream(config.stream.options, images, config.seed)


@styled
def draw(images: ImageSet, stream: Stream) -> Figure:
    """Class over position, a colour for each domain, or where shifts change for each shift."""
    labels, kinds = images.labels[stream.rows], np.array(stream.domains(images))
    if len(stream.shifts) > 1:
        kinds = np.array([str(shift) for shift in stream.shifts_of_items()])
    names = list(dict.fromkeys(kinds.tolist()))
    colours = [BLUE, AMBER]
    if len(names) > 2:
        colours = colormaps["viridis"](np.linspace(0, 0.95, len(names))).tolist()
    figure = Figure(figsize=(4.6, 0.9), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(names, colours, strict=False):
        here = np.flatnonzero(kinds == name)
        axes.scatter(here, labels[here], s=30, marker="|", linewidths=0.7, color=colour, label=name)
    axes.set_yticks(range(images.num_classes), images.class_names, fontsize=6)
    axes.set_ylim(images.num_classes - 0.5, -0.5)
    axes.set_xlim(0, len(stream))
    axes.tick_params(labelsize=6)
    if len(names) > 1:
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(fontsize=5, handletextpad=0, labelspacing=0.2, **beside)
    return figure


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: streams(entry.configured(StreamsConfig, {}, argv)), StreamsConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
