"""What is handed to the project that it must refuse, as the tests' own parameters have it.

python -m tests.hostile

writes ``docs/evidence/hostile.md``: a row an input, with what is said of it, and its test.
"""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence" / "hostile.md"
#: What tests call the parameter with the words that are expected.
_SAID = ("message", "told", "said", "reason", "named")
#: Words in the names of tests of what is refused; of others the parameters are no bad input.
_REFUSES = re.compile(
    "refuse|wrong|bad_|broken|cannot|not_go|not_fit|is_said|what_is_right|unknown|ignored|passes"
    "|sentence|errors|tell_nothing|no_plain|named"
)
#: Tests of pages, and not of programs.
_OTHERS = ("test_commands.py",)
#: Letters of an input, and of what is said of it, that a row shows.
_LONGEST = 110
_HEAD = """# Hostile input

What was tried that cannot be used, and what was said of it: the words that the test looks for in
the sentence. They are {count} inputs in {tests} tests. The table is made from the tests' own
parameters, by `tests/hostile.py`. What is attacked in other ways stands in
[reliability](reliability.md).

| tried | comes of it | test |
|---|---|---|
"""


class Refused(NamedTuple):
    """An input.

    Attributes:
        test: its file and function.
        tried: the input, as the test writes it.
        said: what is looked for in the sentence.
    """

    test: str
    tried: str
    said: str


def refused() -> list[Refused]:
    """All inputs, in the order of files and tests."""
    return [row for path in sorted(ROOT.glob("tests/**/test_*.py")) for row in _in_file(path)]


def _in_file(path: Path) -> Iterator[Refused]:
    if path.name in _OTHERS:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.FunctionDef) and _REFUSES.search(node.name)):
            continue
        test = f"{path.relative_to(ROOT)}: {node.name}"
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize"):
                yield from _in_mark(test, mark)


def _in_mark(test: str, mark: ast.Call) -> Iterator[Refused]:
    """Inputs of a parametrised test whose last parameter is what is said."""
    names, cases = ast.literal_eval(mark.args[0]), mark.args[1]
    if isinstance(names, str) or names[-1] not in _SAID or not isinstance(cases, ast.List):
        return
    for case in cases.elts:
        if isinstance(case, ast.Call):  # pytest.param
            case = ast.Tuple(case.args, ast.Load())
        if isinstance(case, ast.Tuple) and isinstance(case.elts[-1], ast.Constant):
            if not case.elts[-1].value:
                continue
            tried = ", ".join(ast.unparse(part) for part in case.elts[:-1])
            yield Refused(test, tried, _plain(str(case.elts[-1].value)))


def _plain(pattern: str) -> str:
    """A regular expression as one reads it."""
    return re.sub(r"\\(.)", r"\1", pattern.replace(r"\d", "N")).replace(".*", " … ").strip("^$")


def page() -> str:
    """The page."""
    rows = refused()
    lines = [
        f"| <code>{_cell(row.tried)}</code> | {_cell(row.said)} | {_cell(row.test)} |"
        for row in rows
    ]
    head = _HEAD.format(count=len(rows), tests=len({row.test for row in rows}))
    return head + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    flat = " ".join(text.split())
    short = flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]}…"
    return html.escape(short, quote=False).replace("|", "&#124;").replace("_", "&#95;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
