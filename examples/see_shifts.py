"""One image, clean and under every shift that suits it, at severities 1, 3 and 5.

python examples/see_shifts.py

The sheets of docs/reference/shifts.md; image=FILE shows yours (PNG, JPEG, TIFF, DICOM or NIfTI),
and output=FILE.png says where it goes.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from holdfast.callbacks.report.page import as_picture
from holdfast.datamodules import DATA, Shift, load_images
from holdfast.datamodules.shifts import CORRUPTIONS
from holdfast.tta.style import save, styled

SEVERITIES = (1, 3, 5)
#: Shifts side by side.
BLOCKS = 3


def picture(file: str | None) -> Tensor:
    """A file's image (C, H, W) within 0..1, or one of the phantom's."""
    if file is None:
        return load_images("phantom", DATA["phantom"](target_images=8), "target")[0]["image"]
    folder = DATA["folder"](root=str(Path(file).parent), target=str(Path(file).parent))
    images = load_images("folder", folder, "target")
    place = [Path(name).name for name in images.ids].index(Path(file).name)
    return images[place]["image"]


@styled
def sheet(image: Tensor, seed: int = 0) -> Figure:
    """The image under each shift; of a volume the middle slice."""
    names = [name for name, kind in CORRUPTIONS.items() if kind.fits(len(image), image.ndim - 1)]
    rows, width = -(-len(names) // BLOCKS), len(SEVERITIES) + 1
    size = (0.75 * BLOCKS * (width + 0.2), 0.78 * rows + 0.25)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, BLOCKS * width, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, name in enumerate(names):
        head, *cells = grid[place % rows, place // rows * width :][:width]
        head.text(1, 0.5, name, ha="right", va="center", fontsize=9, transform=head.transAxes)
        for cell, severity in zip(cells, SEVERITIES, strict=True):
            shifted = Shift(((name, severity),), seed)(image, "image").numpy()
            cell.imshow(as_picture(shifted, stretch=False), "gray", vmin=0, vmax=255)
            if place % rows == 0:
                cell.set_title(severity, fontsize=9)
    return figure


def main(argv: list[str]) -> None:
    """Draw the sheet."""
    words = dict(word.split("=", 1) for word in argv)
    output = Path(words.get("output", "runs/shifts.png"))
    output.parent.mkdir(parents=True, exist_ok=True)
    save(sheet(picture(words.get("image"))), output)
    print(output)


if __name__ == "__main__":
    main(sys.argv[1:])
