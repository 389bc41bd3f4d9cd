"""Networks of pixels that MONAI's users trained: their state dicts are adopted as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR
from torch import Tensor, nn

from holdfast.programs import train
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.matching import restored
from holdfast.tta.networks import MODELS, Network, create_network
from holdfast.tta.weights import adopt
from tests.conftest import MASKS, QUICK
from tests.test_weights import saved

_LEVELS = ([[3, 3]] * 4, [[1, 1], [2, 2], [2, 2], [2, 2]], [[2, 2]] * 3)
_FILTERS = [8, 16, 32, 64]


def ours(kind: str, dims: int = 2, side: int = 32, **options: Any) -> tuple[Network, Any]:
    """A network of three classes for images of two channels."""
    torch.manual_seed(1)
    config, size = MODELS[kind](**options), (side,) * dims
    network, told = create_network(kind, config, num_classes=3, channels=2, size=size)
    return network.eval(), told


def theirs(network: nn.Module) -> nn.Module:
    """A network with weights, and running statistics where it has them, of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(drawn + 0.5 if value.dim() == 1 and "bias" not in name else drawn - 0.5)
    return network.eval()


def dynunet(**more: Any) -> nn.Module:
    return DynUNet(2, 2, 3, *_LEVELS, filters=_FILTERS, **more)


@pytest.mark.parametrize(
    ("kind", "built", "options"),
    [
        (
            "basicunet",
            lambda: BasicUNet(2, 2, 3, features=(8, 8, 16, 32, 64, 8)),
            {"width": 8, "norm": "instance"},
        ),
        (
            "basicunet",
            lambda: BasicUNet(3, 2, 3, features=(4, 4, 8, 16, 32, 4), norm="batch"),
            {"width": 4, "norm": "batch"},
        ),
        ("segresnet", lambda: SegResNet(2, 8, 2, 3), {"width": 8}),
        ("dynunet", dynunet, {"width": 8}),
        ("dynunet", lambda: dynunet(deep_supervision=True, deep_supr_num=2), {"width": 8}),
        (
            "swinunetr",
            lambda: SwinUNETR(2, 3, feature_size=12, spatial_dims=2),
            {"width": 12, "side": 64},
        ),
    ],
    ids=["basicunet", "basicunet-3d", "segresnet", "dynunet", "dynunet-supervised", "swinunetr"],
)
def test_logits_are_those_of_monais_network(
    kind: str, built: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    network = theirs(built())
    dims = 3 if getattr(network, "spatial_dims", 2) == 3 or "3d" in str(type(network)) else 2
    dims = max(dims, *(value.dim() - 2 for value in network.state_dict().values()))
    mine, _ = ours(kind, min(dims, 3), **options)
    result = adopt(mine, saved(tmp_path / "file.pt", network.state_dict()))
    assert (result.missing, result.misshapen) == ((), {})
    images = torch.rand(2, 2, *(options.get("side", 32),) * min(dims, 3))
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(mine(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


def test_dynunet_is_adopted_from_either_of_its_two_sets_of_names(tmp_path: Path) -> None:
    network = theirs(dynunet())
    state = network.state_dict()
    once = {name: value for name, value in state.items() if not name.startswith("skip_layers")}
    nested = {name: value for name, value in state.items() if name not in once}
    nested |= {name: value for name, value in once.items() if name.startswith("output_block")}
    images = torch.rand(1, 2, 32, 32)
    for names in (once, nested):
        mine, _ = ours("dynunet", width=8)
        result = adopt(mine, saved(tmp_path / "file.pt", names))
        assert result.unused == ()
        with torch.no_grad():
            torch.testing.assert_close(mine(images), network(images), atol=1e-4, rtol=1e-4)
        back = restored(result.origin, mine.state_dict())
        assert back.keys() == names.keys()
        assert all(torch.equal(back[name], value) for name, value in names.items())


def test_another_width_or_normalisation_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path / "file.pt", theirs(SegResNet(2, 24, 2, 3)).state_dict())
    network, description = ours("segresnet", width=8)
    fits = r"it fits model=segresnet model\.width=24 model\.norm=(instance|group)"
    with pytest.raises(InputError, match=fits):
        adopt(network, file, description=description)


def test_other_peoples_masks_become_a_source_and_are_judged_by_dice(
    mask_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = SourceCheckpoint.load(mask_source)
    scaling = {name: checkpoint.weights[name].tolist() for name in ("mean", "std")}
    named: dict[str, Tensor] = {
        name.removeprefix("features.network.").replace("head.", "final_conv."): value
        for name, value in checkpoint.weights.items()
        if name not in scaling
    }
    file = saved(tmp_path / "file.pt", named)
    words = [*QUICK, *MASKS, "model=basicunet", "model.width=8", "patch=[32,32]"]
    words += [f"weights={file}", "calibrate=off", f"output={tmp_path / 'out'}"]
    words += [f"weights_{name}={value}".replace(" ", "") for name, value in scaling.items()]
    assert train.main([*words, "weights_accuracy=99.9"]) == 2
    told = capsys.readouterr().err
    assert "validation images have dice" in told
    assert "its owner states 99.9 %" in told
    assert train.main(words) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["dice"] == pytest.approx(checkpoint.metrics["dice"], abs=0.01)
