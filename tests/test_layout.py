"""Layouts of images and weights: channels last where that is faster and the network takes it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from holdfast.tta.layout import CHANNELS_LAST, CHANNELS_LAST_3D, CONTIGUOUS, fastest_layout
from holdfast.tta.methods import create_method
from holdfast.tta.networks import SplitNetwork
from holdfast.tta.source import SourceModule
from holdfast.tta.tasks import create_task


class Flat(nn.Module):
    """Flattens its input by a view, as networks do that were written before ``flatten``."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, ...) as (N, values)."""
        return maps.view(len(maps), -1)


def flattening(sides: Sequence[int]) -> nn.Sequential:
    """A network with a convolution for which channels last are faster, and a view behind it."""
    wide = len(sides) == 3
    convolution = nn.Conv3d if wide else nn.Conv2d
    values = 16 * torch.Size(sides).numel()
    torch.manual_seed(0)
    return nn.Sequential(
        convolution(1, 16, 3, padding=1),
        (nn.BatchNorm3d if wide else nn.BatchNorm2d)(16),
        convolution(16, 16, 3, padding=1),
        Flat(),
        nn.Linear(values, 3),
    )


@pytest.mark.parametrize("sides", [(5, 4), (5, 4, 4)])
def test_a_network_that_flattens_by_a_view_is_run_contiguous(sides: tuple[int, ...]) -> None:
    images = torch.rand(4, 1, *sides)
    expected = flattening(sides).eval()(images)
    assert fastest_layout(flattening(sides)) != CONTIGUOUS
    method = create_method("tent", flattening(sides), num_classes=3, normalization="source")
    torch.testing.assert_close(method(images), expected)
    assert method.layout == CONTIGUOUS
    assert method.model[2].weight.is_contiguous()
    assert method(images).isfinite().all()
    values = 16 * torch.Size(sides).numel()
    network = SplitNetwork(nn.Sequential(*flattening(sides)[:-1]), values, 3, 1)
    module = SourceModule(network, create_task("single", 3), lr=0.1, weight_decay=0.0)
    assert module(images).shape == (4, 3)


def test_what_else_a_network_refuses_is_told() -> None:
    method = create_method("tent", flattening((5, 4)), num_classes=3)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        method(torch.rand(4, 1, 5, 5))


def test_weights_of_all_ranks_follow_the_layout() -> None:
    network = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.GroupNorm(4, 16))
    network.to(memory_format=torch.channels_last_3d)  # which GroupNorm must not meet
    fastest_layout(network).lay_out(network)
    assert network(torch.rand(2, 1, 4, 4, 4)).is_contiguous()


def test_one_channel_with_the_strides_of_pixels_brings_in_no_channels_last() -> None:
    pixels = torch.rand(2, 6, 6, 1).permute(0, 3, 1, 2)
    convolution = nn.Conv2d(1, 16, 3)
    assert not convolution(pixels.contiguous()).is_contiguous()
    assert convolution(CONTIGUOUS.laid_out(pixels)).is_contiguous()


def test_weights_that_are_shared_stay_so() -> None:
    network = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv3d(16, 16, 3))
    network[1].weight = network[0].weight
    fastest_layout(network).lay_out(network)
    assert network[1].weight is network[0].weight
    assert network[1].weight.is_contiguous(memory_format=CHANNELS_LAST.format)
    assert network[2].weight.is_contiguous()
    CHANNELS_LAST_3D.lay_out(network)
    assert network[0].weight.is_contiguous()
    assert network[2].weight.is_contiguous(memory_format=CHANNELS_LAST_3D.format)
