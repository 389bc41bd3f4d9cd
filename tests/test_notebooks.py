"""The notebooks of examples/ run from top to bottom, and print what they show."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.notebooks import code, run
from tests.test_tutorials import found

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_what_it_does(path: Path) -> None:
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    assert first["source"][0].startswith("# ")
    for content in code(path):
        compile(content, path.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem == "read_a_trace":
        pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    for told, shown in zip(run(path), outputs, strict=True):
        lines = [line for part in shown for line in "".join(part["text"]).splitlines()]
        assert found(lines, told.splitlines()) is None, told
