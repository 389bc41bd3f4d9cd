"""Streams, drawn: class over position, a colour for each domain or shift.

python examples/see_streams.py

The pictures of docs/reference/streams.md, on the phantom; output=DIR says where they go. Put your
images in place of ``phantom``, and the words of your stream among ``EXAMPLES``.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.datamodules import ImageSet, Stream, create_shift, create_stream, load_images
from holdfast.tta import entry
from holdfast.tta.style import AMBER, BLUE, save, styled

TWO = "data.target=[scanner_b,scanner_c]"
#: The words that ask adapt.py for a stream, by the name of its picture.
EXAMPLES = {
    "iid": "stream=iid",
    "prevalence": "stream=prevalence stream.label=0 stream.fraction=0.7",
    "switch": "stream=prevalence stream.then=2",
    "vector": "stream=prevalence stream.prevalence=[.5,.3,.2,0]",
    "blocks": "stream=blocks stream.blocks=2",
    "together": "stream=blocks stream.together=2",
    "dirichlet": "stream=dirichlet stream.delta=0.1",
    "continual": f"stream=continual {TWO}",
    "shifts": "stream=continual stream.shifts=mr",
    "recurring": f"stream=recurring stream.times=3 {TWO}",
    "gradual": "stream=gradual shift=noise",
    "mixed": "stream=mixed stream.shifts=[noise,blur]",
    "time": "stream=time stream.column=time",
}


def phantom(words: str, count: int) -> tuple[ImageSet, Stream]:
    """The phantom's images, with a time by which classes drift, and the stream over them."""
    base = {"data": {"kind": "phantom", "target_images": count}}
    config = entry.configured(AdaptConfig, GROUPS, words.split(), base)
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
    many = colormaps["viridis"](np.linspace(0, 0.95, len(names))).tolist()
    figure = Figure(figsize=(4.6, 0.9), layout="constrained")
    axes = figure.subplots()
    for name, color in zip(names, many if len(names) > 2 else [BLUE, AMBER], strict=False):
        here = np.flatnonzero(kinds == name)
        axes.scatter(here, labels[here], s=30, marker="|", linewidths=0.7, color=color, label=name)
    axes.set_yticks(range(images.num_classes), images.class_names, fontsize=6)
    axes.set_ylim(images.num_classes - 0.5, -0.5)
    axes.set_xlim(0, len(stream))
    axes.tick_params(labelsize=6)
    if len(names) > 1:
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(fontsize=5, handletextpad=0, labelspacing=0.2, **beside)
    return figure


def main(argv: list[str]) -> None:
    """Draw each."""
    folder = Path(argv[0].removeprefix("output=") if argv else "runs/streams")
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in EXAMPLES.items():
        save(draw(*phantom(words, count=320)), folder / f"{name}.png")
        print(f"{folder / name}.png: {words}")


if __name__ == "__main__":
    main(sys.argv[1:])
