"""A frozen service says what was exported, whatever the file."""

import json
from pathlib import Path

import pytest
import torch

from holdfast.export import baked, export
from holdfast.serving.network import device_of
from holdfast.tta.checkpoint import SourceCheckpoint, read_adapted, save_adapted
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.normalization import statistics_in_use
from tests.commands import fenced
from tests.conftest import ROOT
from tests.peers import peer
from tests.serving.test_keeping import begun, end, items, service

FROZEN = "serve.adapt=false"


@pytest.fixture(scope="module")
def weights(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an adaptation left, and its weights."""
    folder = tmp_path_factory.mktemp("frozen")
    checkpoint = SourceCheckpoint.load(source)
    method = create_method("tent", checkpoint.build(), num_classes=4, normalization="source")
    state = {name: 1.2 * value for name, value in method.adapted_state().items()}
    left = folder / "adapted.ckpt"
    save_adapted(left, checkpoint, "tent", state, statistics_in_use(method.model))
    export(checkpoint, left, format="safetensors", path=folder / "theirs.safetensors")
    return folder


@pytest.fixture(scope="module")
def files(source: Path, weights: Path) -> Path:
    """The same folder, with a graph as well."""
    peer("onnxscript")
    peer("onnxruntime")
    graph = weights / "theirs.onnx"
    export(source, weights / "adapted.ckpt", format="onnx", path=graph)
    return weights


@pytest.mark.slow
def test_graph_and_weights_answer_alike(source: Path, files: Path, tmp_path: Path) -> None:
    logits, answers, versions = [], [], []
    for name in ("adapted.ckpt", "theirs.safetensors", "theirs.onnx"):
        one = begun(source, tmp_path / name, FROZEN, f"start={files / name}")
        given = items(0)
        network = one.engine.model.module.method
        logits.append(network.predict(torch.stack([item.image for item in given])).logits)
        answers.append(one.keeper.serve(given))
        versions.append(answers[-1][0].weights)
        end(one)
        rows = (tmp_path / name / "predictions.csv").read_text().splitlines()
        assert all(f",{versions[-1]}," in f"{row}," for row in rows[1:])
    plain = SourceCheckpoint.load(source).build()
    with torch.no_grad():
        before = plain(torch.stack([item.image for item in items(0)]))
    assert (logits[0] - before).abs().max() > 0.01  # adaptation did something
    for other, said in zip(logits[1:], answers[1:], strict=True):
        torch.testing.assert_close(other, logits[0], atol=1e-4, rtol=1e-4)
        assert [one.prediction for one in said] == [one.prediction for one in answers[0]]
    assert versions[0] == versions[1] != versions[2]  # a hash of tensors, and one of the file


@pytest.mark.slow
def test_the_page_runs_a_graph_without_holdfast(
    source: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "howto" / "weights.md").read_text()
    [content] = [text for name, text in fenced(page) if name == "python" and "onnxruntime" in text]
    images = torch.stack([item.image for item in items(1)])
    checkpoint = SourceCheckpoint.load(source)
    network = baked(checkpoint, read_adapted(files / "adapted.ckpt", checkpoint))
    with torch.no_grad():
        expected = network(images)
    monkeypatch.chdir(files)
    found = {"images": images.numpy()}
    exec(content, found)
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_served_is_refused_with_a_way_out(
    source: Path, weights: Path, tmp_path: Path
) -> None:
    peer("onnxruntime")

    def refused(start: Path, *words: str, frozen: bool = True) -> str:
        adapt = f"serve.adapt={'false' if frozen else 'true'}"
        with pytest.raises(InputError) as error:
            service(source, tmp_path / "refused", adapt, f"start={start}", *words)
        return str(error.value)

    graph = tmp_path / "theirs.onnx"
    facts = json.loads((weights / "theirs.safetensors.json").read_text())

    def told(**more: object) -> Path:
        (tmp_path / "theirs.onnx.json").write_text(json.dumps({**facts, **more}))
        return graph

    assert "export it as .safetensors, or as .onnx" in refused(tmp_path / "theirs.pt2")
    assert "serve it as it is, serve.adapt=false" in refused(graph, frozen=False)
    assert "is exported and cannot adapt" in refused(weights / "theirs.safetensors", frozen=False)
    graph.write_bytes(b"torn")
    assert "theirs.onnx.json does not tell from which source" in refused(graph)
    assert "is no graph of this source" in refused(told())
    other = {**facts["provenance"], "source": "0" * 64}
    assert "was exported from another source" in refused(told(provenance=other))
    assert "would depend on who else asks" in refused(told(normalization="batch"))
    for unknown in ("layer", None, ["batch"]):
        assert "does not tell whether the graph" in refused(told(normalization=unknown))
    del facts["normalization"]
    assert "theirs.onnx.json does not tell whether the graph" in refused(told())


def test_devices_of_other_kinds_are_refused() -> None:
    for name in ("mps", "gpu", "cuda:1"):
        with pytest.raises(InputError, match=f"device={name}: the service runs on auto, cpu, cuda"):
            device_of(name)
    assert device_of("cpu") == torch.device("cpu")


def test_onnxruntime_is_named_where_it_is_absent(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.serving.graph.find_spec", lambda name: None)
    facts = (weights / "theirs.safetensors.json").read_text()
    (tmp_path / "theirs.onnx.json").write_text(facts)
    with pytest.raises(InputError, match=r"needs onnxruntime: pip install 'holdfast\[onnx\]'"):
        service(source, tmp_path / "a", FROZEN, f"start={tmp_path / 'theirs.onnx'}")
