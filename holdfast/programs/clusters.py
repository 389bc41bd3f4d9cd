"""Where classes lie in the source's feature space: at home, under a shift, collapsed, guarded. The
demo's picture of why entropy collapses.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from holdfast.callbacks.report import figures, page
from holdfast.callbacks.report.observe import Part, Window
from holdfast.datamodules import ImageSet
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.methods import create_method

#: Images of a panel: enough to see clusters, few enough to see points.
_IMAGES = 400


def seen(
    checkpoint: SourceCheckpoint,
    images: ImageSet,
    state: Mapping[str, Tensor] | None = None,
    statistics: str = "norm",
) -> Window:
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
    return Window(0, (Part(said.features, said.logits.argmax(1), labels, 0.0, 0),))


def panels(
    checkpoint: SourceCheckpoint, windows: Mapping[str, Window], colors: Mapping[int, str]
) -> list[str]:
    """Each window in the plane of the source's classes, coloured by true class, all on one scale.

    Args:
        checkpoint: of the source, whose class means are marked.
        windows: by caption.
        colors: of the classes.
    """
    plane = figures.source_axes(
        checkpoint.feature_mean, checkpoint.feature_var, checkpoint.prevalence
    )
    drawn = figures.projections(
        list(windows.values()), checkpoint.feature_mean, plane, colors, by_label=True
    )
    return [
        page.figure(draw, f"{_right(window):.0f} % right.", f"{name}.")
        for draw, (name, window) in zip(drawn, windows.items(), strict=True)
    ]


def _right(window: Window) -> float:
    return 100 * float((window.predictions == window.labels).float().mean())
