"""Networks of timm, of torchvision and of a user's own file: built by name, trained, adapted, and
built again from the checkpoint.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.programs import adapt, train
from holdfast.training.run import _run_name
from holdfast.tta import libraries
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.config import read_arguments
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.networks import MODELS, Network, create_network, network_from
from tests.conftest import QUICK
from tests.peers import peer

_FEW = [
    *("data.train_images=128", "data.val_images=64", "data.test_images=64"),
    *("data.target_images=192", "calibrate=off", "epochs=1", "fisher_images=64"),
]
#: A network as somebody has it: a branch for something else, and an answer with names.
_CODE = """
from torch import nn

from beside import WIDTH


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.classify = nn.Linear(WIDTH, classes)
        self.body = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, 2, 1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.grade = nn.Linear(WIDTH, 7)

    def forward(self, images):
        features = self.body(images)
        return {"grade": self.grade(features), "diagnosis": self.classify(features)}


def build(num_classes, channels):
    return Net(channels, num_classes)


def one_logit(channels):
    return Net(channels, 1)


def nothing():
    return 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(libraries, "_GIVEN", {})
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "beside.py").write_text("WIDTH = 16\n")
    (folder / "net.py").write_text(_CODE)
    return folder / "net.py"


def built(kind: str, name: str, classes: int = 3, **more: Any) -> tuple[Network, dict[str, Any]]:
    options = {"name": name, **more}
    size, channels = options.pop("size", (32, 32)), options.pop("channels", 1)
    return create_network(
        kind, MODELS[kind](**options), num_classes=classes, channels=channels, size=size
    )


def test_a_choice_has_a_name_of_its_own() -> None:
    for word, kind, name in (
        ("timm:resnet18", "timm", "resnet18"),
        ("torchvision:vit_b_16", "torchvision", "vit_b_16"),
        ("/a/net.py:build", "file", "/a/net.py:build"),
    ):
        values = read_arguments([f"model={word}", "model.head=fc"], train.GROUPS)
        assert values["model"] == {"kind": kind, "name": name, "head": "fc"}
    with pytest.raises(InputError, match="unknown model 'tim:resnet18'"):
        read_arguments(["model=tim:resnet18"], train.GROUPS)


def test_a_file_of_ones_own_is_trained_adapted_and_never_run_unasked(
    code: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = f"model={code}:build"
    words = [*QUICK, *_FEW, f"output={tmp_path / 's'}"]
    assert train.main([*words, named, "model.head=classify"]) == 0
    checkpoint = SourceCheckpoint.load(tmp_path / "s")
    assert checkpoint.network["options"]["head"] == "classify"
    assert "model.classify.weight" in checkpoint.weights
    assert checkpoint.feature_mean.shape == (4, 16)
    assert _run_name(train.configure([named])) == "phantom-file-net.py-build-seed0"
    libraries._GIVEN.clear()  # as in another process
    words = [*QUICK, f"source={tmp_path / 's'}", "method=tent", f"output={tmp_path / 'a'}"]
    assert adapt.main(words) == 2
    assert f"name it yourself, model={code}:build" in capsys.readouterr().err
    assert adapt.main([*words, named]) == 0
    assert (tmp_path / "a" / "predictions.csv").is_file()
    libraries._GIVEN.clear()
    monkeypatch.setenv("HOLDFAST_MODEL", f"{code}:build")
    SourceCheckpoint.load(tmp_path / "s").build()
    monkeypatch.delenv("HOLDFAST_MODEL")
    # A comment may change, what the network computes may not.
    code.write_text(f"# mine\n{_CODE}")
    SourceCheckpoint.load(tmp_path / "s", named.removeprefix("model=")).build()
    code.write_text(_CODE.replace("nn.ReLU()", "nn.Tanh()"))
    loaded = SourceCheckpoint.load(tmp_path / "s", f"{code}:build")
    with pytest.raises(InputError, match="is not what it was when the source was trained"):
        loaded.build()


def test_what_a_file_may_lack(code: Path) -> None:
    (code.parent / "broken.py").write_text("import nothing_of_that_name\n")
    for name, message in (
        ("absent.py:build", "does not exist"),
        ("net.py:absent", "has no function absent"),
        ("net.py", "not of the form"),
        ("broken.py:build", r"does not run \(.*nothing_of_that_name"),
        ("net.py:nothing", "gives no torch.nn.Module"),
    ):
        with pytest.raises(InputError, match=message):
            built("file", f"{code.parent}/{name}")
    with pytest.raises(InputError, match=r"model.head=body is no Linear layer.*classify"):
        built("file", f"{code}:build", head="body")
    with pytest.raises(InputError, match="has 7 output"):
        built("file", f"{code}:build", head="grade")
    with pytest.raises(InputError, match="does not take images of 2 channel"):
        built("file", f"{code}:build", channels=2, arguments={"channels": 1})


def test_outputs_are_found_or_named(code: Path) -> None:
    images = torch.rand(4, 1, 32, 32)
    network, _ = built("file", f"{code}:build", 7)
    inner = network.eval().model(images)
    torch.testing.assert_close(network(images), inner["grade"])  # the first of seven values
    named, description = built("file", f"{code}:build", 7, output="diagnosis", head="classify")
    torch.testing.assert_close(named.eval()(images), named.model(images)["diagnosis"])
    again = network_from(description)
    again.load_state_dict(named.state_dict())
    torch.testing.assert_close(again.eval()(images), named(images))
    with pytest.raises(InputError, match=r"model.output=no is not among .*grade, diagnosis"):
        built("file", f"{code}:build", 7, output="no")
    with pytest.raises(InputError, match=r"holds no logits of shape.*; model.output=NAME says"):
        built("file", f"{code}:build", 3, output="grade", head="classify")


def test_one_logit_serves_for_two_classes(code: Path) -> None:
    network, _ = built("file", f"{code}:one_logit", 2)
    assert network.classifier.out_features == 1
    method = create_method("tent", network, num_classes=2, lr=0.01)
    before = method.adapted_state()
    assert method(torch.rand(8, 1, 32, 32)).shape == (8, 2)
    after = method.adapted_state()
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(InputError, match="no Linear layer of 3 outputs"):
        built("file", f"{code}:one_logit", 3)


@pytest.mark.parametrize(
    ("kind", "name", "head"),
    [
        ("timm", "test_resnet", "model.fc"),
        ("timm", "test_vit", "model.head"),
        ("timm", "test_efficientnet", "model.classifier"),
        ("torchvision", "shufflenet_v2_x0_5", "model.fc"),
    ],
)
def test_a_name_builds_random_weights_for_the_data(kind: str, name: str, head: str) -> None:
    peer("timm" if kind == "timm" else "torchvision.models")
    network, description = built(kind, name)
    assert network.head_name == head
    images = torch.rand(6, 1, 32, 32)
    expected = network.eval()(images)
    assert expected.shape == (6, 3)
    # Layers that do more than normalise, timm's BatchNormAct2d, keep doing it.
    again = network_from(description)
    again.load_state_dict(network.state_dict())
    method = create_method("source", again.eval(), num_classes=3)
    assert method.head_name == head
    said = method.predict(images)
    torch.testing.assert_close(said.logits, expected, atol=1e-5, rtol=1e-5)
    assert said.features.shape == (6, network.classifier.in_features)


def test_what_libraries_refuse_is_said(code: Path) -> None:
    peer("timm")
    peer("torchvision.models")
    for kind, name, more, message in (
        ("timm", "resnet1", {}, "no network 'resnet1': the nearest are resnet1"),
        ("torchvision", "resnet19", {}, "no network 'resnet19': the nearest are resnet1"),
        ("timm", "", {}, "model=timm:NAME"),
        ("timm", "resnet18", {"size": (8, 8, 8)}, "networks of images, not of volumes"),
        ("timm", "test_vit", {"arguments": {"depht": 2}}, r"cannot be built .*depht"),
        ("torchvision", "vit_b_16", {"size": (32, 48)}, "take square images"),
        ("torchvision", "squeezenet1_0", {}, "no Linear layer of 3 outputs"),
        ("torchvision", "inception_v3", {}, "does not take images of 1 channel"),
    ):
        with pytest.raises(InputError, match=message):
            built(kind, name, **more)
    for word in ("pretrained", "checkpoint_path", "weights_backbone"):
        with pytest.raises(InputError, match="weights are given by weights=FILE"):
            MODELS["timm"](name="resnet18", arguments={word: "x"})


def test_a_checkpoint_that_would_fetch_or_run_something_is_refused(
    source: Path, code: Path, tmp_path: Path
) -> None:
    peer("timm")
    whole = SourceCheckpoint.load(source)
    for kind, options, message in (
        ("timm", {"name": "hf-hub:somebody/network"}, "timm has no network 'hf-hub:somebody"),
        ("timm", {"name": "resnet18", "arguments": {"pretrained": True}}, "by weights=FILE"),
        ("file", {"name": f"{code}:build"}, "code is never run because a checkpoint names it"),
        ("timm", {"name": "resnet18", "arguments": {"depth": 10**9}}, "sizes are out of range"),
    ):
        tampered = replace(whole, network={**whole.network, "kind": kind, "options": options})
        tampered.save(tmp_path / "source.ckpt")
        with pytest.raises(InputError, match=message):
            SourceCheckpoint.load(tmp_path)
    lost = replace(whole, network={**whole.network, "origin": {"a": "b"}})
    lost.save(tmp_path / "source.ckpt")
    with pytest.raises(InputError, match="its origin is none"):
        SourceCheckpoint.load(tmp_path)


def test_an_absent_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'holdfast\[timm\]'"):
        built("timm", "resnet18")


@pytest.mark.parametrize(("name", "method"), [("test_efficientnet", "tent"), ("test_vit", "dsbr")])
def test_timms_networks_are_trained_and_adapted_under_the_guard(
    name: str, method: str, tmp_path: Path
) -> None:
    peer("timm")
    words = [*QUICK, *_FEW, f"model=timm:{name}", f"output={tmp_path / 's'}"]
    assert train.main(words) == 0
    source = f"source={tmp_path / 's'}"
    words = [*QUICK, source, f"method={method}", "method.lr=.01", f"output={tmp_path / 'a'}"]
    assert adapt.main([*words, "data.target=scanner_b"]) == 0
    checkpoint = SourceCheckpoint.load(tmp_path / "s")
    assert checkpoint.architecture == ("vit" if "vit" in name else "timm")
    assert len((tmp_path / "a" / "predictions.csv").read_text().splitlines()) == 193
    if name == "test_efficientnet":  # BatchNorm's statistics can be chosen
        assert checkpoint.layer_moments
    state = torch.load(tmp_path / "a" / "adapted.ckpt", weights_only=True)["state"]
    assert state
    assert all(name.startswith("model.") for name in state)
