"""Single volumes on CPUs: seen as two halves, with the answer and the gradients of the whole."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from holdfast.tta.methods import create_method
from holdfast.tta.networks import MODELS, create_network
from holdfast.tta.tasks import create_task
from holdfast.tta.volumes import HalvedConv3d, halve_single_volumes
from tests.counts import counted


def slow_loops(work: Callable[[], object]) -> int:
    """How many convolutions were left to torch's own loop."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return sum(e.count for e in profiled.key_averages() if e.key == "aten::slow_conv3d_forward")


def answered(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """The answer, and the gradients of a sum of it with weights that tell every place apart."""
    images = images.clone().requires_grad_()
    answer = layer(images)
    weights = torch.linspace(-1, 1, answer.numel()).view_as(answer)
    asked = (images, *layer.parameters())
    return [answer.detach(), *torch.autograd.grad((answer * weights).sum(), asked)]


@pytest.mark.parametrize("depth", [3, 4, 9])
@pytest.mark.parametrize(
    ("kernel", "padding"), [(3, 1), (3, 0), ((1, 3, 3), (0, 1, 1)), ((5, 3, 1), (2, 1, 0)), (2, 1)]
)
def test_halves_answer_as_the_whole(depth: int, kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    whole = nn.Conv3d(3, 4, kernel, padding=padding)
    halved = nn.Sequential(copy.deepcopy(whole))
    halve_single_volumes(halved)
    assert type(halved[0]) is HalvedConv3d
    volume = torch.rand(1, 3, depth, 7, 6)
    assert halved(volume).is_contiguous()  # as networks expect that look at it by a view
    for ours, theirs in zip(answered(halved, volume), answered(whole, volume), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
        {"padding_mode": "replicate", "padding": 1},
    ],
)
def test_other_convolutions_stay_torchs_own(options: dict[str, object]) -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 3, **options), nn.Conv3d(4, 4, 1))
    halve_single_volumes(network)
    assert {type(layer) for layer in network} == {nn.Conv3d}


def test_a_method_leaves_no_single_volume_to_the_slow_loop() -> None:
    torch.manual_seed(0)
    shape = {"num_classes": 3, "channels": 1, "size": (16, 16, 16)}
    network, _ = create_network("basicunet", MODELS["basicunet"](width=8), **shape)
    names = set(network.state_dict())
    method = create_method("tent", network, num_classes=3, task=create_task("segmentation", 3))
    volume = torch.rand(1, 1, 16, 16, 16)
    # A head of 1x1x1 is left to it, whose products it does as fast as they can be done.
    assert slow_loops(lambda: method(volume)) == 1
    assert set(network.state_dict()) == names


def test_two_volumes_and_double_precision_are_left_to_torch() -> None:
    layer = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1))
    halve_single_volumes(layer)
    one, two = torch.rand(1, 2, 4, 4, 4), torch.rand(2, 2, 4, 4, 4)
    assert counted(lambda: layer(one)).by_name["aten.cat.default"] == 2
    assert counted(lambda: layer(two)).by_name["aten.cat.default"] == 0
    assert counted(lambda: layer.double()(one.double())).by_name["aten.cat.default"] == 0
