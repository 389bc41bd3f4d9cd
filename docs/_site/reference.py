"""Pages of reference that are made from the code: options, files, and what Python imports."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import holdfast
from holdfast.tta import entry
from holdfast.tta.usage import explain

ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = ("train", "adapt", "serve", "benchmark", "compare")


def pages() -> dict[str, str]:
    """Every page that is made, by its place in docs/."""
    made = {f"reference/options/{name}.md": options(name) for name in _PROGRAMS}
    return {**made, "reference/api.md": api(), "examples.md": examples()}


def options(name: str) -> str:
    """A program's options, as its ``--help`` tells them."""
    schema, groups, usage = _asked(name)
    whole = explain(schema, groups, usage, "all")
    parts = [f"# holdfast {name}", _text(usage), "## Options", _text(_plain(whole, groups))]
    for group in sorted(groups):
        parts += [f"## {group}=", _text(explain(schema, groups, usage, group))]
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """What ``import holdfast`` offers, by its docstrings."""
    parts = ["# Python", "What `import holdfast` offers. Every name is imported when it is used."]
    for name in sorted(holdfast.__all__, key=str.lower):
        value = getattr(holdfast, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            parts.append(f"::: {value.__module__}.{value.__qualname__}")
        elif inspect.isroutine(value):
            signature = str(inspect.signature(value))
            told = _code(inspect.getdoc(value) or "").split("\n\nArgs:")[0]
            parts.append(f"## {name}\n\n```python\n{name}{signature}\n```\n\n{told}")
        else:
            parts.append(f"## {name}\n\nA mapping: " + ", ".join(f"`{key}`" for key in value))
    return "\n\n".join(parts) + "\n"


def examples() -> str:
    """The scripts of examples/, with what each says of itself."""
    parts = ["# Examples", "Scripts that the tests run. Each opens with its command."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text()
        told = ast.get_docstring(ast.parse(text)) or ""
        first, _, rest = told.partition("\n\n")
        command, _, more = rest.partition("\n\n")
        parts += [f"## {path.name}", first]
        parts += [_text(command), _code(more)] if command.startswith("python ") else [_code(rest)]
        parts.append(f"[The whole script](examples/{path.name}.txt)")
    return "\n\n".join(parts) + "\n"


def _asked(name: str) -> tuple[type, Any, str]:
    """Schema, groups and usage that a program hands to ``entry.run``."""
    module = importlib.import_module(f"holdfast.programs.{name}")
    seen: list[tuple[type, Any, str]] = []

    def record(
        work: object, schema: type, groups: Any, usage: str, *_: object, **__: object
    ) -> int:
        seen.append((schema, groups, usage))
        return 0

    original, entry.run = entry.run, record
    try:
        module.main(["--help"])
    finally:
        entry.run = original
    return seen[0]


def _plain(whole: str, groups: Any) -> str:
    """Of everything that help tells, what stands before the groups."""
    lines: list[str] = []
    for line in whole.split("\n\n", 2)[-1].splitlines():
        if any(line.startswith(f"{group}=NAME") for group in groups):
            break
        lines.append(line)
    return "\n".join(lines).strip("\n")


def _text(content: str) -> str:
    return f"```text\n{content}\n```"


def _code(prose: str) -> str:
    """A docstring's double back quotes are Markdown's single ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", prose)
