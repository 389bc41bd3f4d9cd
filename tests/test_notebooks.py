"""The notebooks of examples/ run from top to bottom, and print what they show."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.notebooks import code, run
from tests.test_tutorials import found

#: A line of what happened: a batch, and a sentence. Which ones come when differs among machines,
#: as networks do that they trained: cells that print such are tagged so.
_EVENT = re.compile(r"\d+ [A-Z].*\.")
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
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    for told, cell in zip(run(path), cells, strict=True):
        lines = [line for part in cell["outputs"] for line in "".join(part["text"]).splitlines()]
        if "machine" in cell["metadata"].get("tags", ()):
            assert told
            assert all(_EVENT.fullmatch(line) for line in [*lines, *told.splitlines()]), told
        else:
            assert found(lines, told.splitlines()) is None, told
