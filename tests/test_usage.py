"""--help: a page that fits, and every option within reach of it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import make_dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.__main__ import COMMANDS, main
from holdfast.programs import adapt, benchmark, serve, train
from holdfast.tta import options
from holdfast.tta.config import group_choices, read_arguments, resolve, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.groups import Group
from holdfast.tta.methods import METHODS
from holdfast.tta.told import FILE, GROUPS, described
from holdfast.tta.usage import explain, topic_of
from tests.conftest import TINY

Capture = pytest.CaptureFixture[str]
Program = tuple[type, Any, str]

ADAPT: Program = (adapt.AdaptConfig, adapt.GROUPS, adapt.USAGE)
TRAIN: Program = (train.TrainConfig, train.GROUPS, train.USAGE)
SERVE: Program = (serve.ServeConfig, serve.GROUPS, serve.USAGE)
PROGRAMS: dict[str, Program] = {
    "adapt": ADAPT,
    "accept": (adapt.AcceptConfig, adapt.GROUPS, adapt.ACCEPT_USAGE),
    "serve": SERVE,
    "train": TRAIN,
    "benchmark": (benchmark.BenchmarkConfig, {}, benchmark.USAGE),
}


#: Options that have options of their own.
NESTED = ("wandb", "predictions", "alert", "tuned", "data", "serve", "checkpoint")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of options, those of options within one after a dot."""
    for name, value in values.items():
        if isinstance(value, dict) and name in NESTED:
            yield from flat(value, f"{prefix}{name}.")
        elif name != "kind":
            yield f"{prefix}{name}"


@pytest.mark.parametrize("command", [*COMMANDS, "adapt accept", "benchmark study=paper"])
def test_help_fits(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: holdfast {command.split(' study')[0]}")
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "--print_config" in " ".join(lines[-2:])


#: What takes seconds to import.
LIBRARIES = {"torch", "lightning", "monai", "torchmetrics", "wandb", "scipy", "matplotlib"}
#: Runs every command's help, and prints which had imported a library, and which.
_ASKED = f"""
import contextlib, io, sys
from holdfast.__main__ import COMMANDS, main
for topic in ("--help", "--help=all", "--help=method.tent"):
    for command in [*COMMANDS, "adapt accept"]:
        if topic == "--help=method.tent" and command not in ("adapt", "serve"):
            continue
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert main([*command.split(), topic]) == 0
        assert told.getvalue()
        if loaded := {LIBRARIES} & {{*sys.modules}}:
            sys.exit(f"{{command}} {{topic}}: {{sorted(loaded)}}")
assert "holdfast.tta.usage" in sys.modules
"""


def test_help_waits_for_no_library() -> None:
    """torch and Lightning take ten seconds of a processor; no page needs any of it."""
    command = [sys.executable, "-c", _ASKED]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_what_is_written_down_of_options_is_what_they_are() -> None:
    written = json.loads(FILE.read_text(encoding="utf-8"))
    assert written == described(), "python -m holdfast.tta.told"
    for _, groups, _ in PROGRAMS.values():
        assert all(GROUPS[name] is kinds for name, kinds in groups.items())


@pytest.mark.parametrize("program", [ADAPT, TRAIN, SERVE], ids=("adapt", "train", "serve"))
def test_help_says_the_same_before_choices_are_imported(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = explain(*program, "all")
    monkeypatch.setattr(Group, "imported", False)
    assert explain(*program, "all") == whole


def test_help_knows_a_choice_that_somebody_added(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_dataclass("MineConfig", [("often", int, options.option(3, "how often"))])
    monkeypatch.setitem(METHODS._entries, "mine", type("Mine", (), {"Config": config}))
    assert "  method.often=3 " in explain(*ADAPT, "method.mine")


def test_what_people_need_first_comes_first() -> None:
    text = explain(*ADAPT)
    wanted = ("source", "data.target", "method", "guard", "labels", "output", "stream.batch_size")
    places = [text.index(f"\n  {name}=") for name in wanted]
    assert places == sorted(places)
    assert max(places) < text.index("\n  seed=")
    choices = " ".join(text.split())
    for group, kinds in adapt.GROUPS.items():
        assert ", ".join(sorted({*group_choices(group), *kinds})) in choices


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_is_within_reach(name: str) -> None:
    schema, groups, usage = PROGRAMS[name]
    every = explain(*PROGRAMS[name], "all")
    base = {"data": {"kind": "phantom"}} if "data" in groups else {}
    defaults = to_dict(resolve(schema, groups, read_arguments([], groups, base)))
    for option in flat({key: value for key, value in defaults.items() if key not in groups}):
        told = explain(schema, groups, usage, option)
        assert told.startswith(f"  {option}=")
        assert told in every
    for group in groups:
        whole = explain(schema, groups, usage, group)
        assert whole in every
        alone = cache(partial(explain, schema, groups, usage))
        for kind in group_choices(group):
            values = read_arguments([f"{group}={kind}"], groups, base)
            one = explain(schema, groups, usage, f"{group}.{kind}")
            assert one.startswith(f"{group}={kind}: ")
            for option in flat(to_dict(resolve(schema, groups, values))[group], f"{group}."):
                for told in (whole, one, alone(option)):
                    assert f"\n  {option}=" in told, (group, kind, option)


@pytest.mark.parametrize("program", [ADAPT, TRAIN], ids=("adapt", "train"))
def test_help_says_of_every_choice_what_it_is(program: Program) -> None:
    for group in program[1]:
        told = explain(*program, group).split("\nOptions of ")[0]
        said = dict(re.findall(r"^  (\w+) +(\S.+)$", told, flags=re.MULTILINE))
        assert set(said) == set(group_choices(group))
        assert len(set(said.values())) == len(said), (
            f"{group}: a sentence that is said of two choices tells neither"
        )


def test_help_shows_what_a_file_sets() -> None:
    window = explain(*ADAPT, "stream.window")
    assert "\npython adapt.py source=DIR_OR_CKPT stream=window" in window
    assert "stream.batch_size=1 " in window
    assert "stream.window=16 " in window
    assert "method.lr=auto " in explain(*ADAPT, "method.tent")
    whole = explain(*ADAPT, "stream")
    assert "stream.batch_size=… " in whole  # choices differ
    assert "depends on the choice: --help=stream.NAME tells" in whole


def test_a_whole_sentence_where_the_page_has_no_room() -> None:
    assert "labels=null" in explain(*ADAPT)
    assert "unlabelled evidence" not in explain(*ADAPT)
    assert "unlabelled evidence" in explain(*ADAPT, "labels")


@pytest.mark.parametrize(
    ("topic", "message"),
    [("metod", "did you mean method"), ("method.tnet", "did you mean method.tent"), ("x.y", "all")],
)
def test_unknown_topics_are_refused(topic: str, message: str, capsys: Capture) -> None:
    with pytest.raises(InputError, match=message):
        explain(*ADAPT, topic)
    assert adapt.main([f"--help={topic}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: there is no help on {topic!r}: ")


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        (["seed=1"], None),
        (["--help"], ""),
        (["-h"], ""),
        (["seed=1", "--help=method.tent"], "method.tent"),
    ],
)
def test_what_help_is_asked_on(words: list[str], topic: str | None) -> None:
    assert topic_of(words) == topic


def test_print_config_prints_what_would_be_and_stops(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"source={source}", "method=tent", "method.lr=0.5", "--print_config"]
    assert adapt.main(words) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["method"]["lr"] == 0.5
    assert shown["data"]["target_images"] == 500  # of the source's own
    assert train.main([*TINY, "--print_config"]) == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    assert train.main(["again.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == (tmp_path / "again.yaml").read_text()
    assert benchmark.main(["seeds=[3]", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seeds"] == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["again.yaml"]
    assert adapt.main([*words, "method.lrr=1"]) == 2
    assert "did you mean lr" in capsys.readouterr().err


def test_commands_name_programs() -> None:
    assert all(callable(import_module(module).main) for module, _ in COMMANDS.values())
