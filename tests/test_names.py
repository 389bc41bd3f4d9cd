"""One name for one thing, and one thing by a name."""

import ast
from collections import Counter
from pathlib import Path

from tests.test_imports import ROOT, modules

MODULES = modules().values()


def test_no_two_classes_have_one_name() -> None:
    found = [
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(found) > 300
    assert [name for name, count in Counter(found).items() if count > 1] == []


def test_options_are_declared_in_one_module() -> None:
    """``options`` is how options are declared; a part's own are its ``settings``, a program's its
    ``config``.
    """
    assert [path.relative_to(ROOT) for path in MODULES if path.stem == "options"] == [
        Path("tta/options.py")
    ]
