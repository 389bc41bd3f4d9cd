"""Weights trained elsewhere that fit by shape: what images say of them, and what other libraries
call theirs.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import DenseNet121, ResNet
from torch import Tensor, nn

from holdfast.training.config import configure
from holdfast.training.prepare import source_data
from holdfast.training.run import train as train_
from holdfast.tta.adoption import (
    Weights,
    fitting_order,
    judged,
    output_names,
    output_order,
    take,
)
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.errors import InputError
from holdfast.tta.networks import (
    MODELS,
    Network,
    SplitNetwork,
    create_network,
    lookalikes,
    network_from,
)
from holdfast.tta.weights import adopt, read_weights
from tests.conftest import QUICK, TINY, TINY_TRAINING
from tests.peers import peer
from tests.test_weights import saved, used

_SIZE = (32, 32)


def built(kind: str, classes: int = 3, **options: Any) -> tuple[Network, dict[str, Any]]:
    network, description = create_network(
        kind, MODELS[kind](**options), num_classes=classes, channels=1, size=_SIZE
    )
    return network.eval(), description


def said(source: Path, file: Path, *words: str) -> list[str]:
    """What is said of a file's weights, adopted with these words, on the phantom's validation
    images.
    """
    config = configure([*QUICK, *TINY, f"weights={file}", *words])
    data = source_data(config)
    images = data.images["train"]
    network, description = create_network(
        config.model.kind,
        config.model.options,
        num_classes=images.num_classes,
        channels=images.channels,
        size=images.size,
    )
    named: dict[str, Any] = {}
    if config.weights_classes is not None:
        names = output_names(config.weights_classes)
        named = {"order": output_order(names, images.class_names), "outputs": len(names)}
    adopt(network, file, description=description, **named)
    sample = data.sample("val", 160)
    stated = config.weights_accuracy
    return judged(network, description, images.class_names, sample, stated)


def test_a_monai_resnet_of_stride_one_is_adopted_by_its_option(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = used(
        ResNet("basic", [2, 2, 2, 2], [64, 128, 256, 512], 2, n_input_channels=1, num_classes=3)
    )
    file = saved(tmp_path / "monai.pt", theirs.state_dict())
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        right, _ = built("resnet18", conv1_stride=1)
        adopt(right, file)
        torch.testing.assert_close(right(images), theirs(images))
        wrong, description = built("resnet18")
        adopt(wrong, file)  # the shapes are the same
        assert not torch.allclose(wrong(images), theirs(images), atol=1e-2)
    assert {"conv1_stride": 1} in lookalikes(description)


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        ("compact", {}, 3),
        ("resnet10", {"norm": "group"}, 7),
        ("densenet121", {"norm": "group"}, 1),
        ("densenet121", {}, 0),
        ("vit", {"hidden_size": 48, "layers": 2}, 7),
    ],
)
def test_lookalikes_have_the_same_shapes(kind: str, options: dict[str, Any], count: int) -> None:
    network, description = built(kind, **options)
    others = lookalikes(description)
    assert len(others) == count
    with torch.no_grad():  # so that attention is not the same for all tokens
        for parameter in network.parameters():
            parameter.mul_(3 if kind == "vit" else 1)
    for changed in others[-1:] if kind != "densenet121" else []:
        other = network_from({**description, "options": {**description["options"], **changed}})
        other.load_state_dict(network.state_dict())
        images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert not torch.allclose(other.eval()(images), network(images), atol=1e-6)


def test_weights_of_another_stride_are_told_loudly_with_the_option(
    source: Path, tmp_path: Path
) -> None:
    file = saved(tmp_path / "file.pt", SourceCheckpoint.load(source).weights)
    right = said(source, file)
    assert not any("model." in sentence for sentence in right)
    assert right[0].startswith("before adaptation, 160 validation images have a balanced")
    wrong = said(source, file, "model.conv1_stride=2")
    assert wrong[1].startswith("WARNING: with model.conv1_stride=1, which changes no shape, it has")
    stated = ["model.conv1_stride=2", "weights_accuracy=95"]
    with pytest.raises(InputError, match=r"not what their owner measured.*owner states 95.0 %.*st"):
        said(source, file, *stated)


class Brightness(nn.Module):
    """The mean of each image, as its only feature."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


def test_another_scaling_of_the_images_is_reported() -> None:
    network = SplitNetwork(Brightness(), 1, 2, 1)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        network.head.bias.zero_()
    labels = torch.arange(40) % 2
    images = torch.where(labels == 1, 0.47, 0.2).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    batches = [{"image": images, "label": labels}]
    description = {"kind": "efficientnet", "options": {}}
    wrong = judged(network, description, ["a", "b"], batches, before=37.5)
    assert "of 50.0 % (37.5 % without the weights, chance is 50.0 %)" in wrong[0]
    assert wrong[1] == ("WARNING: with weights_mean=[0.449] weights_std=[0.226] it has 100.0 %")
    assert (float(network.mean), float(network.std)) == (0.0, 1.0)  # its own
    network.mean.fill_(0.449)
    assert len(judged(network, description, ["a", "b"], batches)) == 1


@pytest.mark.parametrize(
    ("kind", "mean", "told"),
    [
        ("timm", None, "as is usual for test_vit: give weights_mean"),
        ("timm", [0.3], ""),
        ("", None, ""),
    ],
)
def test_weights_bring_their_scaling(
    kind: str, mean: list[float] | None, told: str, tmp_path: Path, caplog: Any
) -> None:
    if kind:
        peer("timm")
    name = {"name": "test_vit"} if kind else {}
    network, description = built(kind or "compact", **name)
    network.mean.fill_(0.125)
    network.std.fill_(0.25)
    state = network.state_dict()
    if kind:  # a library's file has none
        state = {key.removeprefix("model."): v for key, v in state.items() if "." in key}
    file = saved(tmp_path / "file.pt", state)
    fresh, description = built(kind or "compact", **name)
    batches = [{"image": torch.rand(6, 1, 32, 32), "label": torch.arange(6) % 3}]
    with caplog.at_level("INFO", "holdfast"):
        take(fresh, description, Weights(str(file), mean), ["a", "b", "c"], batches)
    usual = (0.5, 0.5) if kind else (0.125, 0.25)
    expected = (mean[0] if mean else usual[0], usual[1])
    assert (float(fresh.mean), float(fresh.std)) == pytest.approx(expected)
    sentences = [record.getMessage() for record in caplog.records]
    assert any(told in sentence for sentence in sentences)
    assert any("head" in line and line.endswith("  head") for line in sentences[0].splitlines())
    assert description["origin"]
    assert "% without the weights" in sentences[2]


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_weights_that_know_nothing_are_told_loudly_whatever_the_number_of_classes(
    classes: int,
) -> None:
    torch.manual_seed(0)
    network, description = built("vit", classes, hidden_size=48, layers=1)
    labels = torch.arange(120) % classes
    batches = [{"image": torch.rand(120, 1, 32, 32), "label": labels}]
    names = [f"class{i}" for i in range(classes)]
    said = judged(network, description, names, batches)
    assert said[1].startswith("WARNING: that is nearer to chance than to right: if its owner")
    unknown = [{**batches[0], "label": torch.full((120,), -1)}]
    assert "no validation image has a label" in judged(network, description, names, unknown)[0]


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a source that knows every class: of one trained more briefly two outputs may fit
    one class best, and then no order is better.
    """
    words = [*QUICK, *TINY_TRAINING, "epochs=12", f"output={tmp_path_factory.mktemp('able')}"]
    return train_(configure(words))


def test_another_order_of_the_outputs_is_reported_and_can_be_given(
    able: Path, tmp_path: Path
) -> None:
    checkpoint = SourceCheckpoint.load(able)
    names, weights = checkpoint.class_names, dict(checkpoint.weights)
    order = [2, 0, 3, 1][: len(names)]
    for name in ("head.weight", "head.bias"):
        weights[name] = weights[name][order]
    theirs = [names[index] for index in order]
    file = saved(tmp_path / "file.pt", weights)
    wrong = said(able, file)
    assert f"if it was trained so, weights_classes=[{','.join(theirs)}]" in wrong[1]
    assert len(wrong) == 2  # another stem does better too, and worse than the order
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(theirs) + "\n")
    right = said(able, saved(tmp_path / "right.pt", checkpoint.weights))
    for words in (f"weights_classes=[{','.join(theirs)}]", f"weights_classes={listed}"):
        assert said(able, file, words) == right


def test_the_order_in_which_torchvision_lists_numbered_folders() -> None:
    names = [str(number) for number in range(1, 13)]
    theirs = sorted(names)  # 1, 10, 11, 12, 2, ...
    labels = torch.arange(240) % 12
    outputs = torch.tensor([theirs.index(names[label]) for label in labels])
    outputs[:10] = 0  # it is not always right
    meant = fitting_order(F.one_hot(outputs, 12).float(), labels)
    assert meant is not None
    assert [names[index] for index in meant] == theirs
    assert output_order(theirs, names) == [theirs.index(name) for name in names]
    assert fitting_order(torch.zeros(240, 12), labels) is None


def test_outputs_that_are_named_wrongly_are_refused(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for given, message in (
        (["a", "b"], "has no c"),
        (["a", "b", "b", "c"], "b twice"),
        (str(tmp_path / "absent.txt"), "does not exist"),
        ([], "names nothing"),
    ):
        with pytest.raises(InputError, match=message):
            output_order(output_names(given), names)
    network, _ = built("compact")
    file = saved(tmp_path / "file.pt", built("compact", 5)[0].state_dict())
    with pytest.raises(InputError, match="names 4 outputs, and the file's last layer has 5"):
        adopt(network, file, order=[0, 1, 2], outputs=4)
    adopt(network, file, order=[4, 0, 2], outputs=5)  # of more outputs those of the data's classes
    expected = read_weights(file)["head.bias"][[4, 0, 2]]
    torch.testing.assert_close(network.head.bias.detach(), expected)


def test_one_logit_becomes_the_second_of_two_classes(tmp_path: Path) -> None:
    theirs = used(built("compact", 1)[0])
    network, _ = built("compact", 2)
    adopt(network, saved(tmp_path / "file.pt", theirs.state_dict()))
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(network(images), torch.cat([0 * expected, expected], 1))


def torchvision_resnet18(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward pass of torchvision's ResNet-18, from its state dict."""

    def norm(x: Tensor, name: str) -> Tensor:
        tensors = [
            state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        ]
        return F.batch_norm(x, *tensors)

    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "bn1")), 3, 2, 1)
    for name in [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]:
        stride = 2 if name.endswith(".0") and name != "layer1.0" else 1
        y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(y, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
        if f"{name}.downsample.0.weight" in state:
            x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
            x = norm(x, f"{name}.downsample.1")
        x = F.relu(norm(y, f"{name}.bn2") + x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def torchvision_state(kind: str) -> dict[str, Tensor]:
    """A state dict as torchvision names it, which knows no bias in downsampling."""
    torch.manual_seed(0)
    state = used(built(kind)[0]).state_dict()
    renamed = {
        name.removeprefix("features.").replace("head.", "fc."): value
        for name, value in state.items()
        if name not in ("mean", "std") and not name.endswith("downsample.0.bias")
    }
    return renamed


def test_torchvisions_resnet18_gives_the_same_logits(tmp_path: Path) -> None:
    state = torchvision_state("resnet18")
    assert "layer4.0.downsample.0.weight" in state
    assert len(state) == 122  # as torchvision's has
    network, _ = built("resnet18")
    result = adopt(network, saved(tmp_path / "resnet18.pth", state))
    assert (result.missing, result.unused, result.misshapen) == ((), (), {})
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), torchvision_resnet18(state, images))


def test_torchvisions_other_names_are_known(tmp_path: Path) -> None:
    resnet50 = torchvision_state("resnet50")
    assert len(resnet50) == 320  # as torchvision's has
    adopt(built("resnet50")[0], saved(tmp_path / "resnet50.pth", resnet50))
    theirs = used(DenseNet121(2, 1, 3))
    renamed = {
        name.replace(".layers.", ".").replace("class_layers.out", "classifier"): value
        for name, value in theirs.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm1.weight" in renamed
    network, _ = built("densenet121")
    adopt(network, saved(tmp_path / "densenet121.pth", renamed))
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images))


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [("resnet18", "resnet10", {}), ("compact", "compact", {"norm": "group"})],
)
def test_a_file_of_a_network_that_does_more_is_refused(
    theirs: str, ours: str, options: dict[str, str], tmp_path: Path
) -> None:
    file = saved(tmp_path / "file.pt", built(theirs)[0].state_dict())
    network, description = built(ours, **options)
    with pytest.raises(InputError, match=rf"0 missing, .* left over.*: it fits model={theirs}$"):
        adopt(network, file, description=description)


@pytest.mark.parametrize(
    "named",
    ["encoder.{}", "backbone.{}", "model._orig_mod.backbone.{}", "_orig_mod.module.encoder.{}"],
)
def test_holders_are_stripped_wherever_they_stand(named: str, tmp_path: Path) -> None:
    state = torchvision_state("compact")
    held = {
        named.format(name.replace("layer1.", "layer1._orig_mod.")): value
        for name, value in state.items()
    }
    network, _ = built("compact")
    result = adopt(network, saved(tmp_path / "file.pt", held))
    assert (result.missing, result.unused) == ((), ())


def test_a_shortcut_without_weights_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: nn.Module = ResNet(
        *("basic", [2, 2, 2, 2], [64, 128, 256, 512], 2),
        n_input_channels=1,
        conv1_t_stride=2,
        num_classes=3,
        shortcut_type="A",
    )
    file = saved(tmp_path / "file.pt", used(theirs).state_dict())
    network, description = built("resnet18")
    with pytest.raises(InputError, match=r"it fits model=resnet18 model\.shortcut=A$"):
        adopt(network, file, description=description)
    network, description = built("densenet121")
    with pytest.raises(InputError, match=r"it fits model=resnet18 model\.shortcut=A"):
        adopt(network, file, description=description)
    grouped = saved(tmp_path / "grouped.pt", built("compact", norm="group")[0].state_dict())
    network, description = built("compact")
    with pytest.raises(InputError, match=r"it fits model=compact model\.norm=group$"):
        adopt(network, grouped, description=description)
    right, _ = built("resnet18", shortcut="A")
    adopt(right, file)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(right(images), theirs(images))
