"""The examples run, and show what they say they show."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from holdfast.adapting.assembly import Assembly
from holdfast.serving.config import configured
from holdfast.serving.network import model_of
from holdfast.tta.errors import InputError
from tests.conftest import ROOT

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "shapes")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The example of the name that the test asks for, imported as a script is."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_opens_with_what_it_shows_and_the_command(path: Path) -> None:
    first, _, command, *_ = path.read_text().removeprefix('"""').splitlines()
    assert first.endswith(".")
    assert command == f"python examples/{path.name}"


@pytest.mark.parametrize("example", ["own_model"], indirect=True)
def test_a_plain_torch_model_gains_by_adapting(example: ModuleType) -> None:
    scores = example.main()
    assert scores["dsbr"] > scores["control"] > scores["source"] + 20


@pytest.mark.parametrize("example", ["own_loop"], indirect=True)
def test_the_guard_saves_a_network_in_a_plain_loop(example: ModuleType) -> None:
    scores = example.main()
    assert scores["unguarded"] < 50
    assert scores["guarded"] > 70


@pytest.mark.parametrize("example", ["own_module"], indirect=True)
def test_the_guard_saves_a_module_of_ones_own(example: ModuleType) -> None:
    scores = example.main()
    assert scores["unguarded"] < 50
    assert scores["guarded"] > 70


@pytest.mark.parametrize("example", ["own_folder"], indirect=True)
def test_a_folder_and_a_table_of_ones_own(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main([f"output={tmp_path}"]) == 0
    metrics = json.loads((tmp_path / "table" / "metrics.json").read_text())
    assert metrics["balanced_accuracy"] > 80
    assert set(metrics["subgroups"]) == {"sex", "age/20"}
    assert "age/20  20-39" in capsys.readouterr().out
    assert example.main([f"here={tmp_path / 'here'}"]) == 2
    assert "name both folders" in capsys.readouterr().err


@pytest.mark.parametrize("example", ["draw_fields"], indirect=True)
def test_two_sites_are_drawn_with_masks_and_with_a_table(
    example: ModuleType, tmp_path: Path
) -> None:
    masks, findings = tmp_path / "masks", tmp_path / "findings"
    words = ["here=12", "there=5"]
    assert example.main([*words, f"output={masks}"]) == 0
    assert example.main([*words, "findings=true", f"output={findings}"]) == 0
    for site, count in (("here", 12), ("there", 5)):
        images, drawn = (sorted((masks / site / kind).iterdir()) for kind in ("images", "masks"))
        assert [path.name for path in images] == [path.name for path in drawn]
        assert len(images) == count
        values = {value for path in drawn for value in np.unique(np.asarray(Image.open(path)))}
        assert values == {0, 1, 2}
        with (findings / f"{site}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(findings / row["path"]).is_file() for row in rows] == [True] * count
        assert set(rows[0]) == {"path", "elongated", "granular", "lobulated"}


@pytest.mark.slow
def test_a_method_added_in_a_script(tmp_path: Path) -> None:
    # In a process of its own, where its name stays.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(ROOT / "examples" / "add_method.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "create_method: " in done.stdout
    assert json.loads((tmp_path / "adapted" / "metrics.json").read_text())["balanced_accuracy"] > 80
    assert "kind: margin" in (tmp_path / "adapted" / "config.yaml").read_text()


@pytest.mark.parametrize("example", ["see_streams"], indirect=True)
def test_streams_are_drawn_as_the_page_asks_for_them(example: ModuleType, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "streams.md").read_text()
    for name, words in example.EXAMPLES.items():
        assert f"`{words}` | ![" in page
        assert f"(streams/{name}.png)" in page
    for name in ("iid", "time"):
        figure = example.draw(*example.phantom(example.EXAMPLES[name], count=40))
        assert figure.axes[0].collections


@pytest.mark.parametrize("example", ["see_shifts"], indirect=True)
def test_an_image_of_ones_own_under_every_shift(example: ModuleType, tmp_path: Path) -> None:
    image = ROOT / "docs" / "reference" / "streams" / "iid.png"
    (tmp_path / "mine.png").write_bytes(image.read_bytes())
    example.main([f"image={tmp_path / 'mine.png'}", f"output={tmp_path / 'out' / 'sheet.png'}"])
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize("example", ["use_export"], indirect=True)
def test_an_export_serves_in_plain_torch_and_in_the_service(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert example.main(tmp_path) < 1e-4
    told = example.read_header(tmp_path / "theirs.safetensors")
    audited = json.loads((tmp_path / "safetensors" / "audit.json").read_text())
    assert told["weights"] == audited["weights"]
    assert (told["source"], told["stream"]) == (audited["source"], audited["stream"])
    assert (told["method"], told["run"]) == ("tent", "safetensors")
    # The service serves it frozen, and says what plain torch says.
    model = f"{example.__file__}:network"
    words = [f"source={tmp_path / 'source'}", f"model={model}", "serve.adapt=false"]
    start = tmp_path / "theirs.safetensors"
    config, checkpoint = configured([*words, f"start={start}"])
    assembly = Assembly.of(config.adapting(), checkpoint)
    module, _, version = model_of(config, assembly)
    images = torch.rand(3, 1, *checkpoint.size)
    with torch.no_grad():
        served = module.method(images)
    torch.testing.assert_close(served, example.classify(start, images), atol=1e-4, rtol=1e-4)
    assert version is not None
    # One without its origin, or of another source, is refused.
    facts = tmp_path / "theirs.safetensors.json"
    facts.write_text(facts.read_text().replace(told["source"], "0" * 64))
    with pytest.raises(InputError, match="was exported from another source"):
        model_of(config, assembly)
    facts.unlink()
    with pytest.raises(InputError, match="does not tell from which source"):
        model_of(config, assembly)
