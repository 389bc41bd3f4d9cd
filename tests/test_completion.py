"""Completion: what bash offers is what the programs take, and no Python runs for it."""

import doctest
import os
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from holdfast.__main__ import COMMANDS, main
from holdfast.adapting.config import GROUPS, AdaptConfig
from holdfast.programs import completion
from holdfast.programs.completion import script, sorted_out
from holdfast.tta.config import read_arguments, resolve
from holdfast.tta.words import words

Capture = pytest.CaptureFixture[str]

#: Fills in what readline does, and prints what the function offers.
_ASK = """
source "$1"
COMP_LINE=$2 COMP_POINT=${3:-${#2}} COMPREPLY=()
_holdfast
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, as the command prints it."""
    path = tmp_path_factory.mktemp("completion") / "holdfast"
    with path.open("w") as file, redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


def offered(script: Path, line: str, point: int | None = None) -> list[str]:
    """What bash offers at the end of a line, or at a place in it; with nothing else on its path."""
    at = [] if point is None else [str(point)]
    asked = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", "-c", _ASK, "bash", script, line, *at],
        env={"PATH": "", "HOME": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stderr == ""
    return asked.stdout.split()


def test_commands_options_and_choices_are_completed(bash: Path) -> None:
    assert offered(bash, "holdfast ") == list(COMMANDS)
    assert offered(bash, "holdfast ad") == ["adapt"]
    assert offered(bash, "holdfast completion ") == ["bash", "zsh", "fish"]
    assert {"source=", "method=", "method.", "seed="} <= set(offered(bash, "holdfast adapt "))
    assert offered(bash, "holdfast adapt see") == ["seed="]
    assert offered(bash, "holdfast adapt method") == ["method=", "method."]
    # What stands before = is typed already, where readline parts words at it.
    assert offered(bash, "holdfast adapt method=te") == ["tent"]
    assert set(offered(bash, "holdfast adapt seed=1 method=")) == set(GROUPS["method"])
    assert offered(bash, "holdfast adapt guard=o") == ["off", "on"]
    assert offered(bash, "holdfast adapt method.momentu") == ["method.momentum="]
    assert offered(bash, "holdfast adapt overwrite=t") == ["true"]
    assert offered(bash, "holdfast compare runs/adapt pairs=c") == ["conditions"]
    # In the middle of a line, what stands behind is left alone.
    assert offered(bash, "holdfast adapt method=te seed=1", point=24) == ["tent"]
    # Of paths and numbers nothing is offered, so that bash completes files.
    assert offered(bash, "holdfast adapt source=ru") == offered(bash, "holdfast adapt seed=") == []
    assert offered(bash, "holdfast adpt see") == []


def test_words_are_what_the_program_takes() -> None:
    every = words(AdaptConfig, GROUPS)
    assert len(every) == len(set(every))
    found = sorted_out(every)
    assert {option.partition("=")[0] for option in found.values} <= {
        option.rstrip("=") for option in [*found.names, *found.inner]
    }
    # A choice of a group that does not depend on others is one that can be typed.
    for word in found.values:
        name = word.partition("=")[0]
        if name in GROUPS:
            values = read_arguments(["source=DIR", word], GROUPS, {"data": {"kind": "phantom"}})
            assert word.endswith(f"={values[name]['kind']}") or name in ("data", "shift", "stream")
            resolve(AdaptConfig, GROUPS, values)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_well_formed(shell: str, tmp_path: Path) -> None:
    text = script(shell, {"adapt": sorted_out(["seed=", "method=", "method=tent", "method.lr="])})
    assert "@" not in text.replace('"$@"', "").replace("[@]", "")
    for word in ("adapt", "seed=", "method=tent", "method.lr="):
        assert word in text
    path = tmp_path / shell
    path.write_text(text)
    if found := shutil.which(shell):  # of those that are here
        subprocess.run([found, "-n", path], check=True)


def test_other_shells_are_refused(capsys: Capture) -> None:
    assert main(["completion", "fsh"]) == 2
    assert "no completion of 'fsh': did you mean fish" in capsys.readouterr().err
    assert main(["completion"]) == 2
    assert "holdfast completion bash|zsh|fish" in capsys.readouterr().err
    assert doctest.testmod(completion).failed == 0
