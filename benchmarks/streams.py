"""The page of streams, docs/streams.md, and its pictures: each stream drawn, class over position.

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
from holdfast.datamodules import STREAMS, ImageSet, Stream, create_shift, create_stream, load_images
from holdfast.tta import entry
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.options import option
from holdfast.tta.style import AMBER, BLUE, save, styled

USAGE = (
    "usage: python -m holdfast.benchmarks.streams [key=value ...]\n\nWrite the page of streams and draw "
    "its pictures."
)

_HEADER = """\
# Streams

A stream is the order in which the target's images arrive, and the shift under which each of them does: `stream=NAME` with
its options. The pictures show four classes over the position in the stream; colours tell domains and shifts apart. The page
and its pictures are written by `python -m holdfast.benchmarks.streams`, and a test holds the page against the code.

| stream | words after `python adapt.py source=DIR_OR_CKPT` | picture |
|---|---|---|
"""

_FOOTER = """
**Batches.** `stream.batch_size` images arrive together; `stream.window` lets the method see the newest images, those of
earlier batches too, and each image still leaves once: `stream=window` is a batch of one with a window of 16.

**Any stream, any shift.** `shift=NAME` or `shift=[A,B]` shifts all images; `stream.shifts`, a list or a modality's family
([shifts](shifts.md)), adds shifts of the stream's own, after it. `stream.passes` goes over the target again, in a new order.

**Again.** The seed decides the order. Every run leaves its stream as `stream.csv` (position, row, id, domain, shift,
severity, seed), which `stream=replay stream.path=FILE` serves again, item by item; a table with the one column `id` will do.
A stream that was interrupted goes on at the exact batch. A stream of a million images is made in less than a second, saved or
replayed in about two; images are shifted when their batch is due.

**Labels** are read by `prevalence`, `blocks` and `dirichlet` alone, to order the images; adaptation never sees them.
"""


class Example(NamedTuple):
    """A stream to draw: its picture's name, the words that ask for it, and what is to be said of
    it.
    """

    picture: str
    words: str
    text: str


_TWO = "data.target=[scanner_b,scanner_c]"
EXAMPLES = (
    Example("iid", "stream=iid", "every image once, shuffled"),
    Example(
        "prevalence",
        "stream=prevalence stream.label=0 stream.fraction=0.7",
        "one class at a given share",
    ),
    Example(
        "switch",
        "stream=prevalence stream.then=2",
        "another class is the frequent one from the middle on",
    ),
    Example(
        "vector",
        "stream=prevalence stream.prevalence=[.5,.3,.2,0]",
        "any vector of shares; drawn with replacement",
    ),
    Example("blocks", "stream=blocks stream.blocks=2", "class after class, each in so many blocks"),
    Example("together", "stream=blocks stream.together=2", "the same, so many classes at a time"),
    Example(
        "dirichlet",
        "stream=dirichlet stream.delta=0.1",
        "classes correlated in time; the smaller δ, the more so",
    ),
    Example("continual", f"stream=continual {_TWO}", "the target's domains, one after the other"),
    Example(
        "shifts",
        "stream=continual stream.shifts=mr",
        "shifts, or a modality's family, one after the other",
    ),
    Example(
        "recurring", f"stream=recurring stream.times=3 {_TWO}", "domains or shifts again and again"
    ),
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
    (folder.parent / "streams.md").write_text(markdown())


def markdown() -> str:
    """The page."""
    rows = []
    for name in STREAMS:
        for example in EXAMPLES:
            if f"stream={name}" in example.words.split():
                picture = (
                    "–" if name == "replay" else f"![{example.text}](streams/{example.picture}.png)"
                )
                rows.append(f"| `{name}`: {example.text} | `{example.words}` | {picture} |")
    return _HEADER + "\n".join(rows) + "\n" + _FOOTER


def made(words: Sequence[str], count: int) -> tuple[ImageSet, Stream]:
    """The phantom's images, with a time by which classes drift, and the stream over them that the
    words ask for.
    """
    base = {"data": {"kind": "phantom", "target_images": count}}
    config = resolve(AdaptConfig, GROUPS, read_arguments(words, GROUPS, base))
    images = load_images("phantom", config.data.options, "target")
    hours = images.labels * 8 + 10 * np.random.default_rng(0).standard_normal(len(images))
    shift = create_shift(config.shift.kind, config.shift.options)
    images = replace(images, transform=shift, metadata={"time": hours})
    return images, create_stream(config.stream.options, images, config.seed)


@styled
def draw(images: ImageSet, stream: Stream) -> Figure:
    """Class over position, a colour for each domain, or where shifts change for each shift."""
    labels = images.labels[stream.rows]
    kinds = (
        [str(shift) for shift in stream.shifts_of_items()]
        if len(stream.shifts) > 1
        else stream.domains(images)
    )
    names = list(dict.fromkeys(kinds))
    colours = (
        colormaps["viridis"](np.linspace(0, 0.95, len(names))) if len(names) > 2 else (BLUE, AMBER)
    )
    figure = Figure(figsize=(4.6, 0.9), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(names, colours, strict=False):
        here = np.flatnonzero(np.array(kinds) == name)
        axes.scatter(here, labels[here], s=30, marker="|", linewidths=0.7, color=colour, label=name)
    axes.set_yticks(range(images.num_classes), images.class_names, fontsize=6)
    axes.set_ylim(images.num_classes - 0.5, -0.5)
    axes.set_xlim(0, len(stream))
    axes.tick_params(labelsize=6)
    if len(names) > 1:
        axes.legend(
            fontsize=5,
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            handletextpad=0,
            labelspacing=0.2,
        )
    return figure


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: streams(entry.configured(StreamsConfig, {}, argv)), StreamsConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
