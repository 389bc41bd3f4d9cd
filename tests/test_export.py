"""Exports say what the adapted network says, under the names that its weights came with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import holdfast.__main__
from holdfast.export import export
from holdfast.programs.export import main
from holdfast.tta.checkpoint import SourceCheckpoint, read_adapted, save_adapted
from holdfast.tta.errors import InputError
from holdfast.tta.methods import Method, create_method
from holdfast.tta.networks import MODELS, create_network
from holdfast.tta.normalization import statistics_in_use
from holdfast.tta.safetensors import read_safetensors
from holdfast.tta.weights import adopt
from tests.peers import peer
from tests.test_peers import _HUGGING_FACE, _SMALL, built, renamed, timm_vit, varied
from tests.test_weights import saved


def sourced(
    folder: Path, kind: str, theirs: dict[str, Tensor] | None = None, **options: Any
) -> SourceCheckpoint:
    """A source checkpoint of a network, of a file's weights where they are given."""
    torch.manual_seed(0)
    classes, more = options.pop("classes", 3), options.pop("adopt", {})
    network, description = create_network(
        kind, MODELS[kind](**options), num_classes=classes, channels=3, size=(64, 64)
    )
    if theirs is None:
        varied(network)
    else:
        result = adopt(network, saved(folder / "theirs.pt", theirs), **more)
        description["origin"] = result.origin
    network.mean.copy_(torch.tensor([0.4, 0.5, 0.6]))
    network.std.copy_(torch.tensor([0.2, 0.25, 0.3]))
    width = network.classifier.in_features
    checkpoint = SourceCheckpoint(
        network=description,
        weights={name: value.clone() for name, value in network.state_dict().items()},
        class_names=[f"c{index}" for index in range(classes)],
        low=0.0,
        high=255.0,
        prevalence=torch.full((classes,), 1 / classes),
        feature_mean=torch.zeros(classes, width),
        feature_var=torch.ones(classes, width),
        separation=1.0,
        temperature=1.0,
        entropy_quantiles=torch.linspace(0, 1, 101),
        data={"kind": "phantom"},
        metrics={},
    )
    checkpoint.save(folder / "source.ckpt")
    return checkpoint


def adapted(
    folder: Path, checkpoint: SourceCheckpoint, normalization: str = "source"
) -> tuple[Path, Method]:
    """The file of a short adaptation, and the method as it is then."""
    settings = {"lr": 0.05, "optimizer": "adam", "normalization": normalization}
    classes = len(checkpoint.class_names)
    method = create_method("tent", checkpoint.build(), num_classes=classes, **settings)
    for seed in range(3):
        method(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    path = folder / "adapted.ckpt"
    statistics = statistics_in_use(method.model)
    save_adapted(path, checkpoint, "tent", method.adapted_state(), statistics)
    return path, method


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(9))


def torch_says(file: Path) -> Callable[[Tensor], Tensor]:
    return torch.no_grad()(torch.export.load(file).module())


def onnx_says(file: Path) -> Callable[[Tensor], Tensor]:
    session = peer("onnx.reference").ReferenceEvaluator(str(file))
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


@pytest.mark.parametrize(
    ("format", "normalization"),
    [
        *(("torch", "source"), ("torch", "robust"), ("safetensors", "robust")),
        *(("program", "robust"), ("onnx", "robust"), ("program", "batch")),
        pytest.param("onnx", "batch", marks=pytest.mark.slow),
        pytest.param("program", "source", marks=pytest.mark.slow),
        pytest.param("onnx", "source", marks=pytest.mark.slow),
    ],
)
def test_every_format_says_what_the_adapted_network_says(
    format: Any, normalization: str, tmp_path: Path
) -> None:
    if format == "onnx":
        peer("onnxscript")
    checkpoint = sourced(tmp_path, "compact")
    path, method = adapted(tmp_path, checkpoint, normalization)
    method.model.requires_grad_(False)
    expected = method.predict(images()).logits
    if normalization == "robust":  # what the batch adds is not kept; the moving ones are
        method.use_statistics("moving", {})
        expected = method.predict(images()).logits
    with torch.no_grad():
        before = checkpoint.build()(images())
    assert (before - expected).abs().max() > 0.01  # adaptation did something
    file = export(tmp_path, path, format=format, path=tmp_path / "out")
    facts = json.loads((tmp_path / f"{file.name}.json").read_text())
    assert facts["classes"] == ["c0", "c1", "c2"]
    assert facts["range"] == [0.0, 255.0]
    assert facts["normalization"] == ("batch" if normalization == "batch" else "fixed")
    if format in ("torch", "safetensors"):
        network, _ = create_network(
            "compact", MODELS["compact"](), num_classes=3, channels=3, size=(64, 64)
        )
        adopt(network, file)
        with torch.no_grad():
            found = network.eval()(images())
    else:
        found = (torch_says if format == "program" else onnx_says)(file)(images())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_torchvision_loads_what_was_adapted(tmp_path: Path) -> None:
    theirs = varied(peer("torchvision.models").resnet18(num_classes=3))
    checkpoint = sourced(tmp_path, "resnet18", theirs.state_dict())
    path, method = adapted(tmp_path, checkpoint)
    state = torch.load(export(checkpoint, path, path=tmp_path / "out.pt"), weights_only=True)
    theirs.load_state_dict(state)  # strict
    assert list(state) == list(theirs.state_dict())
    facts = json.loads((tmp_path / "out.pt.json").read_text())
    mean, std = (torch.tensor(facts[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        found = theirs.eval()((images() - mean) / std)
        torch.testing.assert_close(found, method.predict(images()).logits, atol=1e-4, rtol=1e-4)


def test_a_transformer_goes_back_under_hugging_faces_names(tmp_path: Path) -> None:
    theirs = timm_vit(init_values=1.0)
    named = renamed(theirs.state_dict(), _HUGGING_FACE)
    order = {"order": [2, 0, 1], "outputs": 3}
    checkpoint = sourced(tmp_path, "vit", named, adopt=order, **_SMALL)
    path, method = adapted(tmp_path, checkpoint)
    file = export(checkpoint, path, format="safetensors", path=tmp_path / "out.safetensors")
    state = read_safetensors(file)
    assert state.keys() == named.keys()
    again = built("vit", (64, 64), **_SMALL)
    adopt(again, file, **order)
    again.mean.copy_(checkpoint.weights["mean"])
    again.std.copy_(checkpoint.weights["std"])
    with torch.no_grad():
        expected = method.predict(images()).logits
        torch.testing.assert_close(again(images()), expected, atol=1e-4, rtol=1e-4)
    # Output 0 of the file is the second class, 1 the third and 2 the first.
    assert json.loads((tmp_path / f"{file.name}.json").read_text())["classes"] == ["c1", "c2", "c0"]


def test_one_logit_and_some_of_the_outputs_go_back(tmp_path: Path) -> None:
    one = built("compact", (64, 64), classes=1)
    checkpoint = sourced(tmp_path, "compact", varied(one).state_dict(), classes=2)
    state = torch.load(export(checkpoint, path=tmp_path / "one.pt"), weights_only=True)
    torch.testing.assert_close(state["head.weight"], one.head.weight.detach())
    five = varied(built("compact", (64, 64), classes=5)).state_dict()
    more = {"order": [4, 0, 2], "outputs": 5}
    checkpoint = sourced(tmp_path, "compact", five, adopt=more)
    state = torch.load(export(checkpoint, path=tmp_path / "some.pt"), weights_only=True)
    torch.testing.assert_close(state["head.weight"], five["head.weight"][[0, 2, 4]])
    facts = json.loads((tmp_path / "some.pt.json").read_text())
    assert facts["classes"] == ["c1", "c2", "c0"]


def test_what_weights_cannot_hold_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = sourced(tmp_path, "compact")
    path, _ = adapted(tmp_path, checkpoint, "batch")
    export(checkpoint, path, path=tmp_path / "out.pt")
    assert "statistics that the file does not hold (batch)" in caplog.text
    assert read_adapted(path, checkpoint).statistics == "batch"
    lost = replace(checkpoint, network={**checkpoint.network, "origin": {"a": ["same", "b"]}})
    with pytest.raises(InputError, match="does not tell the names of its weights' file"):
        export(lost, path=tmp_path / "out.pt")
    # A bias that the file did without cannot go back: the check finds out, and no file is left.
    theirs = varied(built("resnet10", (64, 64))).state_dict()
    plain = {name: value for name, value in theirs.items() if "downsample.0.bias" not in name}
    checkpoint = sourced(tmp_path, "resnet10", plain)
    name = "features.layer2.0.downsample.0.bias"
    save_adapted(path, checkpoint, "cotta", {name: torch.full_like(theirs[name], 3.0)})
    with pytest.raises(InputError, match="would say something else than the adapted network"):
        export(checkpoint, path, path=tmp_path / "wrong.pt")
    assert not (tmp_path / "wrong.pt").exists()
    assert "an older version did not write which" in caplog.text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = sourced(tmp_path, "compact")
    path, _ = adapted(tmp_path, checkpoint)
    words = [str(tmp_path), str(path)]
    assert holdfast.__main__.main(["export", *words, "format=safetensors"]) == 0
    assert (tmp_path / "exported.safetensors").is_file()
    assert "logits as of the adapted network" in capsys.readouterr().out
    assert main([*words, "format=safetensors"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "format=safetensors", "overwrite=true"]) == 0
    for wrong, message in (
        ([], "source is missing"),
        ([*words, "format=caffe"], "format=caffe is not known: choose torch, safetensors"),
        ([*words, f"output={tmp_path / 'no' / 'out.pt'}"], "does not exist: make it"),
        ([*words, f"output={tmp_path / 'out.onnx'}"], "would be written: add format=onnx, or"),
    ):
        capsys.readouterr()
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "usage: holdfast export SOURCE [adapted.ckpt]" in capsys.readouterr().out


def test_onnx_is_named_where_it_is_absent(tmp_path: Path, monkeypatch: Any) -> None:
    checkpoint = sourced(tmp_path, "compact")
    monkeypatch.setattr("holdfast.export.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript: pip install 'holdfast\[onnx"):
        export(checkpoint, format="onnx", path=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
