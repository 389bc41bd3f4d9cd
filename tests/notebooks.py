"""Notebooks run cell by cell, as Jupyter does, but without it."""

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any


def code(path: Path) -> Iterator[str]:
    """The code cells of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


def run(path: Path) -> list[str]:
    """Run all cells in one namespace, in the folder of the moment; what each printed."""
    told, known = [], {"__name__": "__main__"}
    for place, content in enumerate(code(path)):
        with redirect_stdout(StringIO()) as printed:
            exec(compile(content, f"{path.name}, cell {place}", "exec"), known)
        told.append(printed.getvalue())
    return told


def with_outputs(path: Path, told: list[str]) -> dict[str, Any]:
    """The notebook with what its cells printed."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, text) in enumerate(zip(cells, told, strict=True), start=1):
        lines = text.splitlines(keepends=True)
        shown = {"output_type": "stream", "name": "stdout", "text": lines}
        cell["execution_count"] = number
        cell["outputs"] = [shown] if lines else []
    return notebook
