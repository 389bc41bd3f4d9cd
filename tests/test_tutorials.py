"""The tutorials do what they show: each command is run as it is written, in a fresh folder."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.tta.csvfile import read_rows
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
    """Whether a line is the one that was printed, but for the figures of another machine; where it
    ends with …, whether the printed one begins so.
    """
    parts = _NUMBER.split(shown.removesuffix("…"))
    pattern = f"({_NUMBER.pattern})".join(map(re.escape, parts))
    match = re.match(pattern if shown.endswith("…") else rf"{pattern}\Z", said)
    if match is None:
        return False
    pairs = zip(_NUMBER.findall(shown), match.groups(), strict=True)
    return all(abs(float(a) - float(b)) <= max(_POINTS, _SHARE * abs(float(a))) for a, b in pairs)


def found(shown: list[str], said: list[str]) -> str | None:
    """The first line shown that was not printed, in this order; None: all were."""
    left = iter(said)
    for line in shown:
        if line.strip() != "…" and not any(alike(line, other) for other in left):
            return line
    return None


def typed(command: str) -> list[str]:
    """Words of a command, whose Python is this one."""
    words = shlex.split(command)
    if words[0] == "holdfast":
        return [sys.executable, "-m", *words]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "WANDB_MODE": "disabled",
    }


def ran(command: str, folder: Path) -> list[str]:
    """Lines that a command prints in a folder that has the programs."""
    done = subprocess.run(
        typed(command), cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return (done.stdout + done.stderr).splitlines()


#: Commands that go on until they are told to stop, in a terminal of their own.
_STAYS = re.compile(r"python (serve\.py|-m pynetdicom storescp|adapt\.py .*data=watch)")
#: Seconds that they may take to say what they are shown to say, and to end.
_PATIENCE = 180


class Terminals:
    """What stays while other commands are typed, each in a terminal of its own.

    Args:
        folder: that has the programs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def type(self, command: str, shown: list[str]) -> list[str]:
        """Lines that a command says, of one that stays until it said what is shown."""
        if not _STAYS.match(command):
            return ran(command, self.folder)
        if command in self.open:  # given again: Ctrl-C comes first
            assert self.end(command) == 0
        log = self.folder / f"terminal-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                typed(command),
                cwd=self.folder,
                env=environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.open[command] = process, log
        deadline = time.monotonic() + _PATIENCE
        while found(shown, log.read_text().splitlines()) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return log.read_text().splitlines()

    def end(self, command: str, ask: bool = True) -> int:
        """Press Ctrl-C, or wait for the end; returns the exit status."""
        process, _ = self.open.pop(command)
        if ask:
            process.send_signal(signal.SIGINT)
        return process.wait(_PATIENCE)

    def close(self) -> None:
        """Leave none behind."""
        for process, _ in self.open.values():
            process.kill()
            process.wait()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def listening(port: str) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", int(port))):
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at {port}")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with the programs and nothing else."""
    for name in ("train.py", "adapt.py", "serve.py", "examples", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folder", "masks", "findings", "module"])
def test_a_tutorial_shows_what_happens(name: str, fresh: Path) -> None:
    page = (TUTORIALS / f"{name}.md").read_text()
    for command, shown in steps(page):
        said = ran(command, fresh)
        missing = found(shown, said)
        assert missing is None, f"{command}\nshown: {missing}\nsaid:\n" + "\n".join(said)
    for language, content in fenced(page):
        if language == "python" and name == "folder":
            ran(shlex.join(["python", "-c", content]), fresh)


@pytest.mark.slow
def test_the_tutorial_of_a_service_shows_what_happens(fresh: Path) -> None:
    """As the others, and its services run beside what is typed; only ports are others."""
    port, node = free_port(), free_port()
    page = (TUTORIALS / "deploy.md").read_text().replace(":8000", f":{port}")
    page = page.replace("11112", node).replace("=first serve.", f"=first serve.port={port} serve.")
    terminals = Terminals(fresh)
    try:
        for command, shown in steps(page):
            if "storescu" in command:
                listening(node)
            said = terminals.type(command, shown)
            missing = found(shown, said)
            assert missing is None, f"{command}\nshown: {missing}\nsaid:\n" + "\n".join(said)
        door, service = (
            next(one for one in terminals.open if word in one) for word in ("adapt.py", "serve.py")
        )
        assert terminals.end(door, ask=False) == 0  # by the file STOP
        assert terminals.end(service) == 0
    finally:
        terminals.close()
    answered = list(read_rows(fresh / "runs" / "serve" / "first" / "predictions.csv"))
    assert len(answered) == 3
    arrived = list(read_rows(fresh / "runs" / "adapt" / "door" / "predictions.csv"))
    assert len({row["id"] for row in arrived}) == len(arrived) == 48
    assert all(row["prediction"] for row in arrived)


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
    assert not alike("balanced accuracy 71.2 %", "balanced accuracy 71.2 % or so")
    assert alike('{"confidence":0.735,…', '{"confidence":0.7351,"more":1}')
    assert not alike("mode: holding", "mode: adapting")
    assert found(["a 1", "…", "b"], ["a 2", "x", "y", "b"]) is None
    assert found(["b", "a"], ["a", "b"]) == "a"
