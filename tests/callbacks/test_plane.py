"""The plane in which clusters are drawn is the source's, and shows which classes meet."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from holdfast.callbacks.report import page
from holdfast.callbacks.report.figures import class_colors
from holdfast.callbacks.report.observe import FeatureWindow, Part
from holdfast.callbacks.report.plane import Plane, alone, clusters, discriminant_plane

SCALE = torch.tensor([3.0, 1.0, 0.5, 2.0, 1.0])


def drawn(means: Tensor, count: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features about some class means, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(means), count, means.shape[1], generator=generator)
    labels = torch.arange(len(means)).repeat_interleave(count)
    return (means[:, None] + SCALE[: means.shape[1]] * noise).flatten(0, 1), labels


def known(means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a checkpoint says of classes of this spread."""
    share = torch.full((len(means),), 1 / len(means))
    return means, (SCALE[: means.shape[1]] ** 2).expand_as(means), share


def window(features: Tensor, labels: Tensor) -> FeatureWindow:
    return FeatureWindow(0, (Part(features, labels, labels, 0.0, 0),))


def nearest(plane: Plane, features: Tensor) -> Tensor:
    """The class of the nearest mean in the plane."""
    return torch.cdist(torch.from_numpy(plane.of(features)), plane.means).argmin(1)


def test_of_three_classes_the_plane_is_that_of_a_linear_discriminant_analysis() -> None:
    means = torch.tensor([[0.0, 0, 0, 0, 0], [4, 2, 0, 0, 1], [0, 0, 1, 5, 0]])
    plane = discriminant_plane(*known(means), range(3))
    features, labels = drawn(means, 20000)
    analysis = LinearDiscriminantAnalysis(solver="eigen").fit(features, labels)
    theirs, _ = np.linalg.qr(analysis.scalings_[:, :2])
    ours, _ = np.linalg.qr(plane.axes.numpy())
    assert np.linalg.svd(ours.T @ theirs)[1].min() > 0.999  # cosines of the angles between them
    assert plane.told == pytest.approx(1)
    # Features count in standard deviations, so that each cloud is round and of radius 1.
    assert np.cov(plane.of(drawn(means[:1])[0]).T) == pytest.approx(np.eye(2), abs=0.1)
    assert torch.from_numpy(plane.of(means)).allclose(plane.means, atol=1e-5)


def test_classes_that_are_close_to_each_other_are_seen_apart() -> None:
    # The first two differ along a third axis alone: those of the largest scatter show them as one.
    places = [[4, 0, 2.5, 0, 0], [4, 0, -2.5, 0, 0], [-4, 6, 0, 0, 0], [-4, -6, 0, 0, 0]]
    means = SCALE * torch.tensor(places)
    features, labels = drawn(means)
    analysis = LinearDiscriminantAnalysis(solver="eigen", n_components=2).fit(features, labels)
    theirs = torch.from_numpy(analysis.transform(means.double().numpy()))
    plane = discriminant_plane(*known(means), range(4))
    assert torch.pdist(theirs).min() < 1 < 4 < torch.pdist(plane.means).min()
    assert (nearest(plane, features) == labels).float().mean() > 0.9
    assert 0.4 < plane.told < 0.9


@pytest.mark.parametrize("classes", [1, 2])
def test_where_classes_need_no_plane_the_features_that_vary_most_make_one(classes: int) -> None:
    means = torch.zeros(classes, 5)
    means[-1, 2] = 3
    plane = discriminant_plane(*known(means), range(classes))
    assert plane.means.isfinite().all()
    used = plane.axes.abs().sum(1).nonzero().squeeze(1).tolist()
    assert used == ([0, 3] if classes == 1 else [0, 2])


def test_a_class_without_images_has_no_place_and_changes_nothing() -> None:
    means, var, share = known(torch.tensor([[0.0, 0, 0, 0, 0], [4, 2, 0, 0, 1], [0, 0, 1, 5, 0]]))
    plane = discriminant_plane(means, var, share, range(3))
    more = [torch.cat([one, torch.zeros(1, 5)]) for one in (means, var)]
    again = discriminant_plane(*more, torch.cat([share, torch.zeros(1)]), range(4))
    assert torch.equal(plane.axes, again.axes)
    assert torch.equal(plane.means, again.means[:3])
    assert again.means[3].isnan().all()


def test_panels_share_one_scale_and_show_means_and_borders() -> None:
    means = SCALE * 6 * torch.eye(4, 5)
    features, labels = drawn(means, 50)
    plane, colors = discriminant_plane(*known(means), range(4)), class_colors(torch.ones(4))
    merged = features * 0.1 + means[2]
    at_home, collapsed = (
        alone(draw).axes[0]
        for draw in clusters(
            [window(features, labels), window(merged, labels)], plane, colors, by_label=True
        )
    )
    assert at_home.get_xlim() == collapsed.get_xlim()
    assert at_home.get_ylim() == collapsed.get_ylim()
    for axes in (at_home, collapsed):
        crosses = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "X"]
        assert np.allclose(crosses, plane.means)
    borders = [[p.vertices for p in c.get_paths()] for c in at_home.collections[4:]]
    again = [[p.vertices for p in c.get_paths()] for c in collapsed.collections[4:]]
    assert len(borders) == len(again) == 4
    for ours, theirs in zip(borders, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert {tuple(c.get_offsets().shape) for c in at_home.collections[:4]} == {(50, 2)}
    assert len(set(nearest(plane, merged).tolist())) == 1, "all lie on one side of the borders"


def test_what_lies_far_away_is_shown_on_the_rim() -> None:
    means = SCALE * 6 * torch.eye(4, 5)
    features, labels = drawn(means, 100)
    features[0] = 1e6
    plane, colors = discriminant_plane(*known(means), range(4)), class_colors(torch.ones(4))
    (draw,) = clusters([window(features, labels)], plane, colors, by_label=True)
    axes = alone(draw).axes[0]
    corners = np.array([axes.get_xlim(), axes.get_ylim()])
    shown = np.concatenate([c.get_offsets() for c in axes.collections[:4]])
    assert len(shown) == len(features)
    assert (shown >= corners[:, 0]).all()
    assert (shown <= corners[:, 1]).all()


def test_borders_are_drawn_where_every_class_has_a_colour() -> None:
    many = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) * 9
    features, labels = drawn(many, 20)
    colors = class_colors(torch.ones(12))
    plane = discriminant_plane(*known(many), colors)
    (draw,) = clusters([window(features, labels)], plane, colors, by_label=True)
    assert len(alone(draw).axes[0].collections) == 12  # points of each class, and no border
    assert page.figure(partial(alone, draw), "caption").count("<svg") == 1
