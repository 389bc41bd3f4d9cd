"""The style of figures: told apart by everybody, and fit for print."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

from holdfast.callbacks.report import strips
from holdfast.tta import style

Floats = npt.NDArray[np.float64]

#: What people see who lack one kind of cone: Machado et al. (2009), linear RGB, full severity.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])
#: CIELAB units between colours that are told apart at a glance; about 2.3 are just noticed.
APART = 15


def lab(linear: Floats) -> Floats:
    """CIELAB of linear RGB (3,)."""
    x, y, z = np.cbrt(np.maximum(_XYZ @ linear.clip(0, 1) / _WHITE, 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def linear(color: str) -> Floats:
    values = np.array(matplotlib.colors.to_rgb(color))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize(
    "colors",
    [
        style.PALETTE,
        tuple(set(strips._STATES.values())),
        tuple(set(strips._MODES.values())),
        tuple(set(strips._SERVING.values())),
    ],
    ids=["palette", "verdicts", "modes", "models"],
)
def test_colours_are_told_apart(colors: tuple[str, ...], kind: str) -> None:
    assert len(colors) > 3
    seen = {color: lab(SEEN[kind] @ linear(color)) for color in colors}
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > APART, (one, other)


def test_a_printed_figure_embeds_its_letters_and_is_the_same_again(tmp_path: Path) -> None:
    with matplotlib.rc_context(dict(style.PRINT)):
        figure = Figure(figsize=(style.COLUMN, 2), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label="a $ b")
        axes.set_xlabel("batch")
        axes.legend()
    paths = style.save_print(figure, tmp_path / "one")
    again = style.save_print(figure, tmp_path / "two")
    assert [path.name for path in paths] == ["one.pdf", "one.png"]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert b"/FontFile2" in paths[0].read_bytes()
    assert b"/Type3" not in paths[0].read_bytes()
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)]
    assert min(sizes) >= style.SMALLEST


def test_the_style_ends_with_its_figure() -> None:
    @style.styled
    def drawn() -> Figure:
        figure = Figure()
        figure.subplots().plot([0, 1])
        return figure

    before = {name: matplotlib.rcParams[name] for name in style.STYLE}
    for _ in range(2):
        [axes] = drawn().axes
        assert not axes.spines["top"].get_visible()
        assert axes.lines[0].get_color() == style.BLUE
    assert {name: matplotlib.rcParams[name] for name in style.STYLE} == before
