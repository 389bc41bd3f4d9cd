"""What is said: a library is silent but for warnings, a program shows plain sentences."""

import logging
import subprocess
import sys

import pytest
from lightning.pytorch.utilities import rank_zero_only

from holdfast.benchmarks import segmentation
from holdfast.benchmarks.script import script
from holdfast.programs import adapt
from holdfast.programs.demo import DemoConfig
from holdfast.tta import entry
from holdfast.tta.saying import heed, say, spoken, warn
from tests.conftest import ROOT

Capture = pytest.CaptureFixture[str]


def test_a_library_says_nothing_but_warnings() -> None:
    code = (
        "from holdfast.tta.saying import say, warn\nsay('classes: 4')\nwarn('100 % of one class')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "100 % of one class\n")


def test_a_program_shows_sentences_as_they_are(capsys: Capture) -> None:
    with spoken(), spoken():
        say("95 % of 7 images: {curly}")
        logging.getLogger("holdfast.datamodules.walk").warning("%d files left out", 2)
    say("afterwards")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("95 % of 7 images: {curly}\n", "2 files left out\n")


@pytest.mark.parametrize(("shown", "out"), [(True, "classes: 4\n"), (False, "")])
def test_without_progress_only_warnings_are_shown(capsys: Capture, shown: bool, out: str) -> None:
    with spoken():
        heed({"enable_progress_bar": shown, "devices": 1})
        say("classes: 4")
        warn("a batch is missing")
    assert capsys.readouterr() == (out, "a batch is missing\n")
    with spoken():  # the next program starts afresh
        say("classes: 5")
    assert capsys.readouterr().out == "classes: 5\n"


def test_a_script_prints_its_table_alone(capsys: Capture) -> None:
    def work(config: DemoConfig) -> str:
        say("classes: 4")
        return "| a table |"

    work.__module__ = segmentation.__name__  # whose docstring is the help
    assert script(DemoConfig, work)([]) == 0
    assert capsys.readouterr() == ("| a table |\n", "classes: 4\n")
    with spoken():  # the next program starts afresh
        say("classes: 5")
    assert capsys.readouterr().out == "classes: 5\n"


@pytest.mark.parametrize(("rank", "out"), [(0, "classes: 4\n"), (1, "")])
def test_of_several_processes_the_first_one_speaks(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, rank: int, out: str
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
    status = entry.run(lambda: say("classes: 4"), adapt.AdaptConfig, adapt.GROUPS, "", [])
    assert (status, capsys.readouterr().out) == (0, out)


def test_what_the_user_set_of_the_logger_is_left_as_it_was() -> None:
    logger = logging.getLogger("holdfast")
    before = logger.level, list(logger.handlers)
    with spoken():
        assert logger.isEnabledFor(logging.INFO)
    assert (logger.level, logger.handlers) == before


@pytest.mark.slow
@pytest.mark.gate
def test_output_that_nobody_reads_ends_without_a_traceback() -> None:
    command = f"{sys.executable} adapt.py --help=all | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("usage: ")
    assert done.stdout.splitlines()[-1] in ("141", "0")  # 0: all of it fitted into the pipe
