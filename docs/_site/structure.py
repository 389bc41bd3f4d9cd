"""The structure of the code as a picture, drawn from its imports: what stands on what.

PYTHONPATH=. python -m docs._site.structure
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Boxes of the picture: parts of the package, with what they hold.
PARTS = {
    "programs": "programs: what is typed",
    "serving": "serving: images by HTTP",
    "benchmarks": "benchmarks: plans, tables",
    "comparing": "comparing: finished runs",
    "adapting": "adapting: a stream, assembled",
    "training": "training: a source",
    "callbacks": "callbacks: guard, records, report",
    "datamodules": "datamodules: images, shifts, streams",
    "tta": "tta: methods, tasks, networks, options",
}
MARKS = ("<!-- structure: drawn by docs/_site/structure.py -->", "<!-- end of structure -->")


def arrows() -> dict[str, set[str]]:
    """By part, the others that it imports from."""
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for part in PARTS:
        inside = ROOT / "holdfast" / part
        for path in sorted((inside if inside.is_dir() else ROOT / part).rglob("*.py")):
            found[part] |= {name for name in _imported(path) if name in PARTS} - {part}
    return found


def mermaid() -> str:
    """The picture, as Mermaid's source, without arrows that longer ways stand for."""
    after = arrows()
    lines = ["```mermaid", "flowchart TD", *(f'  {name}["{told}"]' for name, told in PARTS.items())]
    for here, others in after.items():
        for there in sorted(others):
            if not any(there in reached(other, after) for other in others - {there}):
                lines.append(f"  {here} --> {there}")
    return "\n".join([*lines, "```"])


def reached(start: str, after: Mapping[str, set[str]]) -> set[str]:
    """All that a part stands on, in however many steps; itself where there is a circle."""
    found: set[str] = set()
    left = list(after[start])
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += after[name]
    return found


def _imported(path: Path) -> Iterator[str]:
    """Parts of the package that a file imports from, and other packages' seconds."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            first, _, rest = f"{node.module}.{node.names[0].name}".partition(".")
            if first == "holdfast":
                yield rest.split(".")[0]


def written(page: str) -> str:
    """The page with the picture between its marks."""
    before, rest = page.split(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{mermaid()}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


def main() -> int:
    """Draw it anew in CONTRIBUTING.md."""
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(written(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
