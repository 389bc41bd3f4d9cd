"""How figures look, in print and on screens: one set of colours, sizes and fonts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

#: Inches of a journal's column, and of its page: two columns.
COLUMN, PAGE = 3.3, 6.9
#: Points of the smallest letters, which a journal still takes.
SMALLEST = 7.0
#: Colours that people with each kind of colour blindness tell apart: Okabe and Ito's (2008), and
#: three more that lie as far from these and each other.
BLUE, AMBER, GREEN, RED, PINK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"
SKY, VIOLET, WINE, LIME, YELLOW = "#56b4e9", "#5020b0", "#802020", "#b0d080", "#f0e442"
PALETTE = (BLUE, AMBER, GREEN, RED, PINK, SKY, VIOLET, WINE, LIME, YELLOW)
#: Of what others are held against, which is dashed where it can be: to some it is near ``PINK``.
GREY = "#8a8f98"
#: What every figure has in common; to be in force while it is drawn.
STYLE: Mapping[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "text.parse_math": False,  # names may hold "$"
}
#: Of figures that are printed at their own size: fonts are embedded as TrueType, as publishers ask.
PRINT: Mapping[str, Any] = {
    **STYLE,
    "font.size": SMALLEST + 1,
    "axes.labelsize": SMALLEST + 1,
    "axes.titlesize": SMALLEST + 1,
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "legend.fontsize": SMALLEST,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}
#: Dots an inch of pictures for screens, and for print.
_SCREEN, _PRINT = 110, 300


#: A decorator of what draws a figure in this style.
styled = matplotlib.rc_context(dict(STYLE))


def save(figure: Figure, path: Path) -> None:
    """Write a picture for screens."""
    figure.savefig(path, dpi=_SCREEN)


def save_print(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure that was drawn under ``PRINT`` as PDF and PNG.

    Without dates, so that the same figure makes the same files.

    Args:
        figure: drawn at its size in print.
        stem: path without suffix.
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "png")]
    with matplotlib.rc_context(dict(PRINT)):
        figure.savefig(paths[0], metadata={"CreationDate": None})
        figure.savefig(paths[1], dpi=_PRINT)
    return paths
