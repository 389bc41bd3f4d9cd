"""Every command and option that a page names is one that can be typed, and every link leads
somewhere.
"""

import re
from pathlib import Path

import pytest

from holdfast.tta.config import CONFIGS
from holdfast.tta.errors import InputError
from tests.commands import PAGES, check_command, check_options, commands, fenced, options
from tests.conftest import ROOT

YAML = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_can_be_typed(page: Path) -> None:
    text = page.read_text()
    for command in commands(text):
        check_command(command)
    for words in options(text):
        check_options(words)
    for language, content in fenced(text):
        if language == "python":
            compile(content, str(page), "exec")


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_the_command_of_every_yaml_can_be_typed(path: Path) -> None:
    check_command(path.read_text().splitlines()[0].removeprefix("# "))


def test_commands_are_found_in_blocks_and_sentences() -> None:
    page = "Text `python train.py\ndata=phantom` and `method=tent`.\n\n"
    page += "    make demo  # two minutes\n\n```\npython adapt.py \\\n"
    page += "  source=DIR\nls\n```\n```python\npython = 1\n```\n"
    assert [" ".join(command.split()) for command in commands(page)] == [
        "python adapt.py source=DIR",
        "make demo # two minutes",
        "python train.py data=phantom",
    ]
    assert list(options(page)) == [["method=tent"]]


@pytest.mark.parametrize(
    "command",
    [
        "python adapt.py source=DIR_OR_CKPT method=tent method.lr=1e-2 stream=prevalence "
        "shift=[blur,noise] > log.txt",
        "python adapt.py source=DIR shift=ghosting shift.severity=1..5 guard=on|off "
        "data.target=THERE",
        "WANDB_MODE=disabled .venv/bin/python train.py data=NAME workers=N trainer.accelerator=cpu",
        "python -m holdfast.callbacks.replay runs/adapt/NAME guard.limits.gain=.3",
        "python adapt.py accept source=DIR data.target=NAME labels=FILE.csv",
        "python adapt.py accept --help",
        "holdfast adapt source=DIR method=tent",
        "holdfast adapt --help=method.tent",
        "holdfast replay DIR guard.tuned.patience=3",
        "holdfast compare runs/adapt wandb:ENTITY/PROJECT baseline=tent by=[method,guard]",
        "python adapt.py source=DIR guard.prevalence.CLASS=[LOW,HIGH]",
        "python adapt.py source=DIR guard.prevalence.malignant=[.01,.1]",
        "make help",
    ],
)
def test_good_commands(command: str) -> None:
    check_command(command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python adapt.py sorce=DIR", "sorce"),
        ("holdfast adapt sorce=DIR", "sorce"),
        ("holdfast adapt --help=metod", "did you mean method"),
        ("holdfast adopt source=DIR", "no command adopt"),
        ("python adapt.py source=DIR metod=tent", "metod"),
        ("python adapt.py source=DIR method=tnet", "did you mean tent"),
        ("python adapt.py source=DIR method.lrr=1", "lrr"),
        ("python adapt.py source=DIR data.tagret=there", "tagret"),
        ("python adapt.py source=DIR data.tagret=THERE", "tagret"),
        ("python adapt.py source=DIR guard=on|of", "unknown guard"),
        ("python adapt.py source=DIR stream.batch_size=many", "stream.batch_size"),
        ("python adapt.py source=DIR trainer.acelerator=gpu", "did you mean accelerator"),
        ("python adapt.py accept source=DIR lables=FILE.csv", "lables"),
        ("python adapt.py acept source=DIR", "acept"),
        ("python adapt.py source=DIR guard.prevalance.CLASS=[LOW,HIGH]", "guard.prevalance"),
        ("python adapt.py source=DIR guard.CLASS=[LOW,HIGH]", "guard.CLASS"),
        ("python train.py data=table data.pth=FILE.csv", "data.pth"),
        ("python benchmark.py configs/benchmark/absent.yaml", "does not exist"),
        ("python benchmark.py methods=[tnet]", "did you mean tent"),
        ("python -m holdfast.programs.demo sed=1", "sed"),
        ("python -m holdfast.benchmarks.absent", "no module"),
        ("python -m holdfast.tta.methods.table all=true", "takes no words"),
        ("python absent.py", "no file"),
        ("holdfast compare runs/adapt bseline=tent", "bseline"),
        ("holdfast comprae runs/adapt", "no command comprae"),
        ("python examples/own_folder.py hre=DIR", "hre"),
        ("python examples/own_model.py lr=1", "takes no words"),
        ("make dmo", "no target"),
    ],
)
def test_bad_commands_are_refused(command: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_command(command)


def test_bad_options_are_refused() -> None:
    check_options(["policies=[on]"])
    with pytest.raises(InputError, match="gaurd"):
        check_options(["gaurd=off"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_index_links_every_page() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text()
    for page in docs.rglob("*.md"):
        name = page.relative_to(docs).as_posix()
        assert name == "README.md" or f"]({name})" in index, name
