"""The tutorials do what they show: each command is run as it is written, in a fresh folder."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import fenced
from tests.conftest import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: Points, or a tenth of the figure, that machines may differ by.
_POINTS, _SHARE = 5.0, 0.1


def steps(page: str) -> Iterator[tuple[str, list[str]]]:
    """Commands of a page's console blocks, each with the lines that it is said to print."""
    for language, content in fenced(page):
        if language != "console":
            continue
        for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
            command, *shown = part.rstrip().splitlines()
            yield command, shown


def alike(shown: str, said: str) -> bool:
    """Whether a line is the one that was printed, but for the figures of another machine."""
    if _NUMBER.sub("#", shown) != _NUMBER.sub("#", said):
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(said), strict=True)
    return all(abs(float(a) - float(b)) <= max(_POINTS, _SHARE * abs(float(a))) for a, b in pairs)


def found(shown: list[str], said: list[str]) -> str | None:
    """The first line shown that was not printed, in this order; None: all were."""
    left = iter(said)
    for line in shown:
        if line.strip() != "…" and not any(alike(line, other) for other in left):
            return line
    return None


def ran(command: str, folder: Path) -> list[str]:
    """Lines that a command prints in a folder that has the programs."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return (done.stdout + done.stderr).splitlines()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with the programs and nothing else."""
    for name in ("train.py", "adapt.py", "serve.py", "examples", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folder", "module", "deploy"])
def test_a_tutorial_shows_what_happens(name: str, fresh: Path) -> None:
    page = (TUTORIALS / f"{name}.md").read_text()
    for command, shown in steps(page):
        said = ran(command, fresh)
        missing = found(shown, said)
        assert missing is None, f"{command}\nshown: {missing}\nsaid:\n" + "\n".join(said)
    for language, content in fenced(page):
        if language == "python" and name == "folder":
            ran(shlex.join(["python", "-c", content]), fresh)


def test_the_tutorial_of_a_module_shows_the_example() -> None:
    script = (ROOT / "examples" / "own_module.py").read_text().splitlines()
    page = (TUTORIALS / "module.md").read_text()
    classes = [content for language, content in fenced(page) if content.startswith("class ")]
    assert len(classes) == 2
    for line in "\n".join(classes).splitlines():
        assert not line.strip() or line in script, line


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_has_commands_to_type(page: Path) -> None:
    text = page.read_text()
    assert list(steps(text)) or re.search(r"^    python ", text, re.MULTILINE)


def test_figures_of_another_machine_are_alike_and_words_are_not() -> None:
    assert alike("balanced accuracy 71.2 %", "balanced accuracy 73.9 %")
    assert not alike("balanced accuracy 71.2 %", "balanced accuracy 41.2 %")
    assert not alike("mode: holding", "mode: adapting")
    assert found(["a 1", "…", "b"], ["a 2", "x", "y", "b"]) is None
    assert found(["b", "a"], ["a", "b"]) == "a"
