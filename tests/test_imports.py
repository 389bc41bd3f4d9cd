"""Each module of the package may be the first that somebody imports."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("tta", "callbacks", "datamodules", "benchmarks")


def modules() -> dict[str, Path]:
    """The package's modules by the names that they have when installed."""
    roots = {"holdfast": ROOT / "holdfast", **{f"holdfast.{part}": ROOT / part for part in PARTS}}
    found = {}
    for package, root in roots.items():
        for path in root.rglob("*.py"):
            inside = path.relative_to(root).with_suffix("").parts
            found[".".join([package, *(part for part in inside if part != "__init__")])] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports when it is imported itself."""
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & {*known}
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in known else node.module for name in names} & {*known}
        left += ast.iter_child_nodes(node)


def needs() -> dict[str, set[str]]:
    """By module, those that have to be there before it: what it imports, and the packages around
    these in which it does not lie itself.
    """
    known = modules()
    after: dict[str, set[str]] = {}
    for name, path in known.items():
        after[name] = set()
        for other in imported(path, known):
            parts = other.split(".")
            around = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
            after[name] |= {
                one for one in around & {*known} if not f"{name}.".startswith(f"{one}.")
            }
    return after


def test_no_module_needs_itself() -> None:
    after = needs()
    assert len(after) > 200
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        pytest.fail(f"modules that need each other: {' > '.join(error.args[1])}")
