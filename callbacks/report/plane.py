"""Where classes lie: features in the plane that tells the source's classes apart best, which stays
what it is while a model adapts.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from holdfast.callbacks.report.figures import Numbers
from holdfast.callbacks.report.observe import FeatureWindow
from holdfast.callbacks.report.page import INK, SOFT, SOURCE

#: Part of the mean variance within classes that each feature has at least: one that hardly varies
#: at the source would else decide alone.
_LEAST = 0.01
#: What counts as none, of singular values beside the largest, and of squared distances.
_NOTHING = 1e-9
#: Steps towards the plane; it hardly changes after ten.
_STEPS = 30
#: Points of a side of the grid on which borders are found.
_GRID = 120
#: Share of the images that lie on the picture's rim, at each side, rather than beyond it.
_OUTSIDE = 0.02


class Plane(NamedTuple):
    """The first two discriminant axes of the source.

    Attributes:
        center: (D,) the origin, the mean of all classes.
        axes: (D, 2).
        means: (C, 2) of the classes; NaN for those without an image.
        told: share of what tells the classes apart that these two axes hold.
    """

    center: Tensor
    axes: Tensor
    means: Tensor
    told: float

    def of(self, features: Tensor) -> Numbers:
        """Where features (N, D) lie in it, (N, 2)."""
        return ((features - self.center) @ self.axes).double().numpy()


def discriminant_plane(
    mean: Tensor, var: Tensor, prevalence: Tensor, shown: Collection[int]
) -> Plane:
    """The plane of a source, from what its checkpoint says of its features.

    As in a linear discriminant analysis, features count in standard deviations within classes,
    which are diagonal here. Axes maximise the geometric mean of the squared distances between
    classes (Tao, Li, Wu and Maybank, 2009): by their arithmetic mean, classes that are close to
    each other fall together in the picture.

    Args:
        mean: (C, D) class means.
        var: (C, D) variances within classes.
        prevalence: (C,) share of each class; those without an image are left out.
        shown: classes that are to be told apart.
    """
    known = prevalence > 0
    within = (prevalence[known] / prevalence[known].sum()).double() @ var[known].double()
    within = within.clamp(min=_LEAST * float(within.mean())) + torch.finfo(torch.float32).tiny
    scaled = mean.double() / within.sqrt()
    told = [label for label in shown if known[label]]
    center = scaled[told].mean(0)
    basis = _basis(scaled[told] - center, within)
    places = (scaled[told] - center) @ basis
    turned = _apart(places)
    axes = basis @ turned
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # else the machine's
    means = torch.where(known[:, None], (scaled - center) @ axes, torch.nan)
    held = (places @ turned).square().sum() / places.square().sum()
    return Plane(
        (center * within.sqrt()).float(),
        (axes / within.sqrt()[:, None]).float(),
        means,
        float(held.nan_to_num(1.0)),
    )


def _basis(differences: Tensor, within: Tensor) -> Tensor:
    """Orthonormal directions (D, at least 2) in which K classes (K, D) differ; where they differ in
    less than two, those of the features that vary most.
    """
    _, sizes, directions = torch.linalg.svd(differences, full_matrices=False)
    rank = int((sizes > _NOTHING * sizes.max()).sum())
    features = torch.zeros(len(within), 2, dtype=torch.double)
    features[within.topk(2).indices, [0, 1]] = 1.0
    basis, _ = torch.linalg.qr(torch.cat([directions[:rank].T, features], 1))
    return basis[:, : max(rank, 2)]


def _apart(places: Tensor) -> Tensor:
    """Two orthonormal axes (r, 2) along which all K classes (K, r) are apart: leading directions of
    the scatter between them, in which each pair weighs by its distance in the plane so far.
    """
    weights = torch.ones(len(places), len(places), dtype=torch.double)
    best, axes = -torch.inf, torch.eye(places.shape[1], 2, dtype=torch.double)
    first, second = torch.triu_indices(len(places), len(places), 1)
    for _ in range(_STEPS if len(places) > 2 else 1):
        laplacian = weights.sum(1).diag() - weights
        _, vectors = torch.linalg.eigh(places.T @ laplacian @ places)
        found = vectors[:, -2:].flip(1)
        far = torch.cdist(places @ found, places @ found).square() + _NOTHING
        reached = float(far[first, second].log().mean())
        if reached > best:
            best, axes = reached, found
        weights = (weights / far).sqrt()
    return axes


def clusters(
    windows: Sequence[FeatureWindow], plane: Plane, colors: Mapping[int, str], by_label: bool
) -> list[Callable[[Axes], None]]:
    """What draws each window: its features in the source's plane, all on one scale, with means and
    borders of the source's classes.

    Args:
        windows: features.
        plane: of the source.
        colors: of each class that is shown by itself.
        by_label: colour images by their true class, where there is one; else by the predicted one.
    """
    points = [plane.of(window.features) for window in windows]
    low, high = _limits([*points, plane.means.numpy()])
    shown = [w.labels.where(w.labels >= 0, -1) if by_label else w.predictions for w in windows]

    def draw(places: Numbers, classes: Tensor, axes: Axes) -> None:
        for label in torch.unique(classes).tolist():
            rows = (classes == label).numpy()
            color = colors.get(label, SOURCE)
            inside = places[rows].clip(low, high)
            axes.scatter(inside[:, 0], inside[:, 1], s=9, color=color, alpha=0.6, linewidths=0)
        _classes(axes, plane, colors)
        _borders(axes, plane, colors, low, high)
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("first discriminant axis")
        axes.set_ylabel("second discriminant axis")

    return [partial(draw, places, classes) for places, classes in zip(points, shown, strict=True)]


def alone(draw: Callable[[Axes], None]) -> Figure:
    """A figure of one window."""
    figure = Figure(figsize=(3.5, 3.3), layout="constrained")
    draw(figure.subplots())
    return figure


def _limits(places: Sequence[Numbers]) -> tuple[Numbers, Numbers]:
    """Corners (2,) of a picture of nearly all places and of every class's mean, the last ones."""
    everything = np.concatenate(places)
    finite = everything[np.isfinite(everything).all(1)]
    if not len(finite):
        return np.zeros(2), np.ones(2)
    low, high = np.quantile(finite, [_OUTSIDE, 1 - _OUTSIDE], axis=0)
    means = places[-1][np.isfinite(places[-1]).all(1)]
    low = np.minimum(low, means.min(0, initial=np.inf))
    high = np.maximum(high, means.max(0, initial=-np.inf))
    margin = 0.06 * (high - low) + 1e-6
    return low - margin, high + margin


def _classes(axes: Axes, plane: Plane, colors: Mapping[int, str]) -> None:
    """Mean of each class at the source."""
    for label, color in colors.items():
        place = plane.means[label].numpy()
        axes.plot(*place, "X", color=color, markersize=9, markeredgecolor=INK, markeredgewidth=1)


def _borders(
    axes: Axes, plane: Plane, colors: Mapping[int, str], low: Numbers, high: Numbers
) -> None:
    """Where two classes' means are equally near; none where not every class has a colour."""
    known = plane.means.isfinite().all(1).nonzero().squeeze(1).tolist()
    if len(known) < 2 or not set(known) <= set(colors):
        return
    x, y = (np.linspace(start, end, _GRID) for start, end in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), -1)[:, :, None]
    distance = np.square(grid - plane.means[known].numpy()).sum(-1)
    for place in range(len(known)):
        nearer = np.delete(distance, place, 2).min(2) - distance[:, :, place]
        axes.contour(x, y, nearer, levels=[0], colors=SOFT, linewidths=0.8)
