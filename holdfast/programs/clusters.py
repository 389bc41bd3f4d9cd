"""Where classes lie in the source's feature space: at home, under a shift, collapsed, guarded. The
demo's picture of why entropy collapses.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from holdfast.callbacks.report import page
from holdfast.callbacks.report.observe import FeatureWindow, Part
from holdfast.callbacks.report.plane import alone, clusters, discriminant_plane
from holdfast.datamodules import ImageSet
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.methods import create_method
from holdfast.tta.style import styled

#: Images of a panel: enough to see clusters, few enough to see points.
_IMAGES = 400


def seen(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    state: Mapping[str, Tensor] | None = None,
    statistics: str = "norm",
) -> FeatureWindow:
    """What a network makes of some images, evenly drawn from a set.

    Args:
        checkpoint: of the source.
        images: with their labels.
        state: adapted tensors by name; None: the source's.
        statistics: the method whose normalisation counts: ``source``, or ``norm`` for the batch's.
    """
    rows = torch.linspace(0, len(images) - 1, min(_IMAGES, len(images))).long().tolist()
    pixels = torch.stack([torch.as_tensor(images[row]["image"]) for row in rows])
    network = checkpoint.build()
    network.load_state_dict(dict(state or {}), strict=False)
    method = create_method(statistics, network, num_classes=len(checkpoint.class_names))
    with torch.no_grad():
        said = method.predict(pixels)
    labels = torch.as_tensor([int(images.labels[row]) for row in rows])
    return FeatureWindow(0, (Part(said.features, said.logits.argmax(1), labels, 0.0, 0),))


class Panels(NamedTuple):
    """Windows in the plane of the source's classes, coloured by true class, all on one scale.

    Attributes:
        windows: by caption.
        draws: what draws each.
    """

    windows: Mapping[str, FeatureWindow]
    draws: Sequence[Callable[[Axes], None]]

    @classmethod
    def of(
        cls,
        checkpoint: SourceCheckpoint,
        windows: Mapping[str, FeatureWindow],
        colors: Mapping[int, str],
    ) -> "Panels":
        """Windows of a source, with the colours of its classes."""
        source = checkpoint.feature_mean, checkpoint.feature_var, checkpoint.prevalence
        plane = discriminant_plane(*source, colors)
        return cls(windows, clusters([*windows.values()], plane, colors, by_label=True))

    def panels(self) -> list[str]:
        """Each window for a page."""
        return [
            page.figure(partial(alone, draw), f"{_right(window):.0f} % right.", f"{name}.")
            for draw, (name, window) in zip(self.draws, self.windows.items(), strict=True)
        ]

    @styled
    def picture(self, classes: Mapping[str, str]) -> Figure:
        """All windows side by side, with the classes' colours by name."""
        figure = Figure(figsize=(3.1 * len(self.windows), 3.6), layout="constrained")
        panels = figure.subplots(1, len(self.windows))
        for axes, draw, (name, window) in zip(
            panels, self.draws, self.windows.items(), strict=True
        ):
            draw(axes)
            axes.set_title(f"{name}\n{_right(window):.0f} % right", fontsize="medium")
            axes.label_outer()
        dots = [Patch(color=color, label=name) for name, color in classes.items()]
        figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), handlelength=0.9)
        return figure


def _right(window: FeatureWindow) -> float:
    return 100 * float((window.predictions == window.labels).float().mean())
