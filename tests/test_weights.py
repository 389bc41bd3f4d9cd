"""Networks trained elsewhere: matched by name and shape, reported, and refused where something is
missing.
"""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121, ResNet, ViT
from torch import Tensor, nn

from holdfast.programs import train
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.matching import match
from holdfast.tta.networks import MODELS, Network, create_network
from holdfast.tta.weights import adopt, read_weights
from tests.conftest import QUICK, TINY_TRAINING


def ours(kind: str, classes: int = 3, **options: Any) -> Network:
    config = MODELS[kind](**options)
    return create_network(kind, config, num_classes=classes, channels=1, size=(32, 32))[0].eval()


def monai_resnet(classes: int = 3) -> ResNet:
    arguments = {
        "conv1_t_size": 3,
        "conv1_t_stride": 1,
        "no_max_pool": True,
        "num_classes": classes,
    }
    return ResNet(
        "basic", [1, 1, 1, 1], [16, 32, 64, 128], spatial_dims=2, n_input_channels=1, **arguments
    )


def used(network: nn.Module) -> nn.Module:
    """A network that has seen images, so that its running statistics are its own."""
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(8, 1, 32, 32))
    return network.eval()


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("compact", monai_resnet), ("densenet121", lambda: DenseNet121(2, 1, 3))],
    ids=["resnet", "densenet"],
)
def test_a_monai_bundle_predicts_as_it_did(kind: str, theirs: Any, tmp_path: Path) -> None:
    network = used(theirs())
    saved(tmp_path / "models" / "model.pt", network.state_dict())
    adopted = ours(kind)
    result = adopt(adopted, tmp_path)
    assert len(result.found) == len(network.state_dict())
    assert (result.missing, result.unused, result.misshapen) == ((), (), {})
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(adopted(images), network(images))


def test_a_vision_transformer_is_matched_but_for_its_last_activation(tmp_path: Path) -> None:
    theirs = ViT(
        1,
        (32, 32),
        8,
        hidden_size=48,
        mlp_dim=192,
        num_layers=2,
        num_heads=3,
        classification=True,
        spatial_dims=2,
    )
    adopted = ours("vit", 2, hidden_size=48, layers=2)
    adopt(adopted, saved(tmp_path / "vit.pt", theirs.state_dict()))
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(adopted(images).tanh(), theirs.eval()(images)[0])


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {f"module.model.{name}": value for name, value in state.items()},
        lambda state: {
            "state_dict": {f"net.{name}": value for name, value in state.items()},
            "epoch": 3,
        },
        lambda state: {"model": state, "optimizer": {"state": {}}},
    ],
    ids=["plain", "parallel", "lightning", "monai"],
)
def test_whoever_held_the_network(wrapped: Any, tmp_path: Path) -> None:
    theirs, adopted = ours("compact"), ours("compact")
    theirs.mean.fill_(0.25)
    adopt(adopted, saved(tmp_path / "file.pt", wrapped(theirs.state_dict())))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(adopted.state_dict()[name], value)


def test_the_report_names_what_is_missing_left_over_and_misshapen() -> None:
    state = dict(monai_resnet().state_dict())
    del state["layer1.0.conv1.weight"], state["bn1.num_batches_tracked"]
    state["aux.weight"] = torch.zeros(2)
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    result = match(ours("compact"), state)
    assert result.missing == ("features.layer1.0.conv1.weight",)
    assert result.unused == ("aux.weight",)
    assert str(result).endswith(
        "1 missing (features.layer1.0.conv1.weight), 1 left over (aux.weight), "
        "1 of another shape (features.conv1.weight 16×3×3×3, not 16×1×3×3)"
    )


def test_refusals(tmp_path: Path) -> None:
    five = saved(tmp_path / "five.pt", monai_resnet(5).state_dict())
    whole = saved(tmp_path / "whole.pt", monai_resnet())
    nothing = saved(tmp_path / "nothing.pt", {"epoch": 3})
    other = saved(tmp_path / "other.pt", DenseNet121(2, 1, 3).state_dict())
    sound = ours("compact").state_dict()
    average = saved(
        tmp_path / "average.pt",
        {f"{holder}.{name}": v for holder in ("model", "module") for name, v in sound.items()},
    )
    whole_numbers = saved(
        tmp_path / "int8.pt", {name: value.to(torch.int8) for name, value in sound.items()}
    )
    lost = saved(
        tmp_path / "lost.pt",
        {name: value / 0 if value.dim() == 4 else value for name, value in sound.items()},
    )
    (tmp_path / "nought.pt").touch()
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("bundle/models/model.pt", b"")
    stem = {**sound, "features.conv1.weight": sound["features.conv1.weight"].repeat(1, 3, 1, 1)}
    cases = [(tmp_path / "nought.pt", "is empty"), (tmp_path / "bundle.zip", "unpack it")]
    cases += [(saved(tmp_path / "colour.pt", stem), "images of 3 channel")]
    cases += [
        (average, "hold both model"),
        (whole_numbers, "before quantisation"),
        (lost, "not finite: take an earlier"),
    ]
    cases += [
        (five, "5 classes where the data has 3"),
        (other, "in Python, create_method"),
        (whole, r"holds code or objects \(monai.networks.nets.resnet.ResNet\), which are never"),
    ]
    cases += [
        (nothing, "holds no state dict"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "model.pt does not exist"),
    ]
    for path, message in cases:
        network = ours("compact")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(InputError, match=message):
            adopt(network, path)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_train_makes_a_source_of_adopted_weights(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained = SourceCheckpoint.load(source)
    renamed = {
        name.replace("features.", "").replace("head.", "fc."): value
        for name, value in trained.weights.items()
    }
    mean, std = (renamed.pop(name).tolist() for name in ("mean", "std"))
    file = saved(tmp_path / "elsewhere.pt", renamed)
    words = [*QUICK, *TINY_TRAINING, f"weights={file}", f"output={tmp_path / 'adopted'}"]
    assert train.main([*words, f"weights_mean={mean}", f"weights_std={std}"]) == 0
    assert "0 missing, 0 left over, 0 of another shape" in caplog.text
    adopted = SourceCheckpoint.load(tmp_path / "adopted")
    assert adopted.metrics == trained.metrics
    assert adopted.hash == trained.hash
    for name in ("prevalence", "feature_mean", "feature_var", "entropy_quantiles"):
        torch.testing.assert_close(getattr(adopted, name), getattr(trained, name))
    for name in ("fisher", "layer_moments"):
        pair: list[dict[str, Tensor]] = [getattr(adopted, name), getattr(trained, name)]
        torch.testing.assert_close(*pair)
    assert (tmp_path / "adopted" / "metrics.json").is_file()
    assert train.main([*words, "weights_mean=[0]", "overwrite=true"]) == 2
    assert "give one for each" in capsys.readouterr().err


def test_weights_of_other_channels_are_told_apart_from_another_network(tmp_path: Path) -> None:
    colour, grey = (
        create_network(
            "compact", MODELS["compact"](), num_classes=2, channels=channels, size=(32, 32)
        )[0]
        for channels in (3, 1)
    )
    torch.save(colour.state_dict(), tmp_path / "colour.pt")
    with pytest.raises(
        InputError, match=r"trained on images of 3 channel\(s\), and the data's have 1"
    ):
        adopt(grey, tmp_path / "colour.pt")


def test_our_own_checkpoint_is_read_with_its_scaling(source: Path) -> None:
    assert read_weights(source).keys() == SourceCheckpoint.load(source).weights.keys()
