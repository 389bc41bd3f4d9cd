"""A contact sheet: a dozen images as a network will see them, with what is known of each."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from holdfast.callbacks.report import page
from holdfast.callbacks.report.overlays import overlay
from holdfast.datamodules.images import ImageSet
from holdfast.tta.folder import no_folder, writing
from holdfast.tta.style import save, styled

#: Images on a sheet, and how many stand in a row.
_IMAGES, _COLUMNS = 12, 4
#: Characters of a name on the picture, which has less room than the page.
_SHORT = 34


class Shown(NamedTuple):
    """One image of the sheet: id, what is known of it, and (channels, *spatial) as the network sees
    it.
    """

    name: str
    about: str
    image: npt.NDArray[np.float32]


def write_sheet(
    folder: Path, title: str, lines: Sequence[str], sets: Mapping[str, ImageSet]
) -> Path:
    """Write ``contact.png`` and ``contact.html``; returns the latter.

    Args:
        folder: where; it is made if it is not there.
        title: heading of both.
        lines: what was understood of the images.
        sets: images by the name of their split.

    Raises:
        InputError: the folder cannot be written, or an image cannot be read.
    """
    shown = [_shown(sets[name], name, row) for name, row in chosen(sets)]
    html = page.page(
        title,
        "Images as the network will see them: black is 0, white is 1; of volumes the middle slice, "
        "of those with masks, which are outlined, the slice that shows most.",
        [
            ("What was understood", [page.items(lines)]),
            (
                "Images",
                [page.grid("pictures", [_picture(one) for one in shown])],
            ),
        ],
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_folder(error, folder) from error
    with writing(folder / "contact.png"):
        save(sheet(shown, title), folder / "contact.png")
    with writing(folder / "contact.html"):
        (folder / "contact.html").write_text(html, encoding="utf-8")
    return folder / "contact.html"


def chosen(sets: Mapping[str, ImageSet], count: int = _IMAGES) -> list[tuple[str, int]]:
    """Images that represent the sets: of all splits, and of as many classes as fit.

    Args:
        sets: images by the name of their split.
        count: how many.

    Returns:
        The split and the row of each.
    """
    picked: dict[str, list[int]] = {}
    # The smallest come first, so that what they cannot fill is left to the others.
    order = sorted(sets, key=lambda name: len(sets[name]))
    for place, name in enumerate(order):
        left = count - sum(map(len, picked.values()))
        picked[name] = list(_spread(sets[name].target.kinds, left // (len(order) - place)))
    return [(name, row) for name in sets for row in picked[name]]


def _spread(kinds: npt.NDArray[np.int64], count: int) -> Iterator[int]:
    """Rows of as many classes as fit, evenly over each class."""
    classes = np.unique(kinds)
    classes = classes[np.unique(np.linspace(0, len(classes) - 1, count, dtype=int))]
    for place, kind in enumerate(classes):
        rows = np.flatnonzero(kinds == kind)
        share = count // len(classes) + (place < count % len(classes))
        yield from rows[np.unique(np.linspace(0, len(rows) - 1, share, dtype=int))].tolist()


@styled
def sheet(shown: Sequence[Shown], title: str) -> Figure:
    """The images as one picture."""
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(2.6 * _COLUMNS, 3.1 * rows + 0.5), layout="constrained")
    figure.suptitle(page.shortened(title))
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, one in zip(axes, shown, strict=False):
        ax.imshow(page.as_picture(one.image, stretch=False), cmap="gray", vmin=0, vmax=255)
        about = "\n".join(page.shortened(line, _SHORT) for line in one.about.split("; "))
        ax.set_title(f"{page.shortened(one.name, _SHORT)}\n{about}", fontsize=7)
    return figure


def _picture(one: Shown) -> str:
    return page.picture(one.image, page.shortened(one.name), one.about, stretch=False)


def _shown(images: ImageSet, split: str, row: int) -> Shown:
    item = images[row]
    pixels = item["image"].numpy()
    known = pixels[np.isfinite(pixels)]
    values = (
        f"{known.min():.2f} to {known.max():.2f}, mean {known.mean():.2f}"
        if len(known)
        else "no number"
    )
    target = images.target
    if target.of_pixels:  # outlined, which shows whether it fits
        mask = item[target.key].clamp(min=0).numpy()
        pixels = overlay(item["image"], mask, None).numpy()
    return Shown(item["id"], f"{target.said(row)}; {split}, {item['domain']}; {values}", pixels)
