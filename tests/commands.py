"""The commands that pages tell a reader to type, and whether the programs would take them; nothing
is run.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from holdfast.__main__ import COMMANDS
from holdfast.datamodules.shifts import expanded
from holdfast.tta import entry
from holdfast.tta.config import CONFIGS, Groups, group_choices, read_arguments, resolve, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.usage import explain, topic_of
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: A value that the reader is to put in: DIR, FILE.csv, [LOW,HIGH], or anything with an ellipsis.
_PLACEHOLDER = re.compile(r"|[A-Z][A-Z_]*(\.\w+)?|\[[A-Z]+(,[A-Z]+)*\]|.*…")
_WORD = r"[a-z_]\w*(?:\.\w+)*="
#: Programs whose first words name something: runs, a shell.
_NAMING = (
    "holdfast.callbacks.audit",
    "holdfast.callbacks.replay",
    "holdfast.programs.export",
    "holdfast.programs.compare",
    "holdfast.programs.completion",
)
#: What takes words of its own.
_CALL = re.compile(r"(?:[A-Z_]+=\S+ +)*(?:\.venv/bin/)?(?:python3?|make|holdfast)(?: |$)")


class Program(NamedTuple):
    """What a command-line program takes: its options, and the choices of its groups."""

    schema: type
    groups: Groups


def fenced(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """Commands of a page: lines of fenced and indented blocks, and code within sentences, that
    begin with python, make or holdfast.
    """
    blocks = [
        content for language, content in fenced(text) if language in ("", "bash", "sh", "console")
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += [line[4:] for line in without_blocks(text).splitlines() if line.startswith("    ")]
    for line in [*lines, *spans(text)]:
        found = _CALL.match(line.strip().removeprefix("$ "))
        if found:
            yield line.strip().removeprefix("$ ")


def options(text: str) -> Iterator[list[str]]:
    """Options that a page names within its sentences: code of nothing but key=value words."""
    for span in spans(text):
        words = re.split(rf" (?={_WORD})", span)
        if all(re.match(_WORD, word) for word in words) and "key=value" not in words:
            yield words


def without_blocks(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Code within sentences."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks(text))]


def check_command(command: str) -> None:
    """Refuse a command that could not be typed: no such program, target, file or option.

    Raises:
        InputError: it says what is wrong.
    """
    words = shlex.split(command, comments=True)
    words = words[
        : next(
            (place for place, word in enumerate(words) if word in (">", "|", "&&", ";")), len(words)
        )
    ]
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    name, *words = words
    if not words:
        return
    if name == "make":
        for target in words:
            if target not in targets():
                raise InputError(f"{command}: the Makefile has no target {target}")
        return
    if name == "wandb":
        if words[0] not in ("sweep", "agent", "sync"):
            raise InputError(
                f"{command}: wandb {words[0]} is not among the commands that pages use"
            )
        if words[0] == "sweep" and not (CONFIGS.parent / words[1]).is_file():
            raise InputError(f"{command}: {words[1]} does not exist")
        return
    if name == "holdfast":
        words = [_installed(words[0]), *words[1:]]
    module, *rest = words[1:] if words[0] == "-m" else words
    if module in ("-c", "pytest", "pynetdicom"):
        return
    try:
        check_words(module, rest)
    except InputError as error:
        raise InputError(f"{command}: {error}") from error


def _installed(command: str) -> str:
    """The program that follows ``holdfast``; of those that are files here, the file."""
    if command not in COMMANDS:
        raise InputError(f"holdfast has no command {command}")
    module, _ = COMMANDS[command]
    return f"{command}.py" if (ROOT / f"{command}.py").is_file() else module


def check_words(module: str, words: list[str]) -> None:
    """Refuse words that the program of this name (``adapt.py``, ``programs.demo``) does not take.

    Raises:
        InputError: it says what is wrong.
    """
    # A benchmark's options are those of its study, which its YAML names, and adapt.py's those of
    # its command.
    decide = [
        word
        for place, word in enumerate(words)
        if (module == "benchmark.py" and word.endswith(".yaml"))
        or (module == "adapt.py" and place == 0 and word == "accept")
    ]
    found = program(module, *decide)
    words = words[1:] if decide == ["accept"] else words
    words = [word for word in words if word not in ("…", "...", "--print_config")]
    if found is None:
        if words:
            raise InputError(f"{module} takes no words, such as {words[0]}")
        return
    words = [word for word in words if not _is_help(word, found)]
    if module in _NAMING:
        words = [word for word in words if "=" in word]
    for variant in _variants(expanded(words)):
        _check_variant(module, found, list(variant))


def _is_help(word: str, program: Program) -> bool:
    """Whether a word asks for help; refuses a topic on which there is none."""
    topic = topic_of([word])
    if topic is not None:
        explain(program.schema, program.groups, "", topic)
    return topic is not None


def check_options(words: list[str]) -> None:
    """Refuse options that no program takes all of.

    Raises:
        InputError: it says what is wrong.
    """
    errors = []
    for module in (
        "adapt.py",
        "train.py",
        "serve.py",
        "benchmark.py",
        "holdfast.programs.export",
        "holdfast.programs.compare",
        *_with_main("benchmarks"),
        *_with_main("callbacks"),
    ):
        for chosen in _choices(module, words):
            try:
                check_words(module, [*chosen, *words])
            except InputError as error:
                errors.append(error)
            else:
                return
    raise errors[0]


def targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def _place(name: str) -> Path:
    """The file with the ``main`` of a program; a script's lies in the package."""
    script, inside = ROOT / name, ROOT / "holdfast" / "programs" / name
    if name.endswith(".py"):
        return inside if script.is_file() and inside.is_file() else script
    path = f"{name.removeprefix('holdfast.').replace('.', '/')}.py"
    inside = ROOT / "holdfast" / path
    return inside if inside.is_file() else ROOT / path


@cache
def program(name: str, *words: str) -> Program | None:
    """Options and groups that a program hands to ``entry.run``; None where it takes none.

    Args:
        name: of the program.
        words: from the command line, on which the options depend.

    Raises:
        InputError: there is no such program.
    """
    path = _place(name)
    if not path.is_file():
        raise InputError(f"there is no {'file' if name.endswith('.py') else 'module'} {name}")
    if not _takes_words(path):
        return None
    module = _loaded(path)
    seen: list[Program] = []

    def record(work: object, schema: type, groups: Groups, *_: object, **__: object) -> int:
        seen.append(Program(schema, groups))
        return 0

    original = entry.run
    entry.run = record
    try:
        module.main([*words, "--help"])
    finally:
        entry.run = original
    return seen[0]


def _choices(module: str, words: list[str]) -> Iterator[tuple[str, ...]]:
    """Choices of the groups whose options are named without one: the defaults, then all others."""
    found = program(module)
    open_groups = {word.split(".")[0] for word in words if "." in word.split("=")[0]} - {
        word.split("=")[0] for word in words
    }
    yield ()
    if found is not None:
        names = sorted(open_groups & set(found.groups))
        yield from product(*(_fitting(found, name, words) for name in names))


def _fitting(found: Program, name: str, words: list[str]) -> list[str]:
    """Choices of a group that have the options which words name; all, where none has them."""
    keys = (word.partition("=")[0].split(".") for word in words)
    wanted = {key[1] for key in keys if key[0] == name and len(key) > 1}
    choices = group_choices(name)
    options = {
        kind: {field.name for field in fields(found.groups[name][kind])}
        for kind in choices
        if kind in found.groups[name]
    }
    fitting = [kind for kind in choices if wanted <= options.get(kind, wanted)]
    return [f"{name}={kind}" for kind in fitting or choices]


def _loaded(path: Path) -> ModuleType:
    script = (
        path.parent.name == "examples"
    )  # whose folder is where it imports from; the others do from the root
    sys.path.insert(0, str(path.parent if script else ROOT))
    try:
        if script:
            return importlib.import_module(path.stem)
        parts = path.relative_to(ROOT).with_suffix("").parts
        inside = parts if parts[0] == "holdfast" else ("holdfast", *parts)
        return importlib.import_module(".".join(inside))
    finally:
        sys.path.pop(0)


def _with_main(package: str) -> list[str]:
    return [
        f"holdfast.{package}.{path.stem}"
        for path in sorted((ROOT / package).glob("*.py"))
        if _takes_words(path)
    ]


def _takes_words(path: Path) -> bool:
    """Whether a program hands options to ``entry.run``, by itself or as a script of benchmarks."""
    text = path.read_text()
    return "main = script(" in text or ("entry.run(" in text and "\ndef main(" in text)


def _variants(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The words with a|b for either, and 1..5 for its ends."""
    choices = []
    for word in words:
        key, mark, value = word.partition("=")
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", value)
        values = ends.groups() if ends else value.split("|")
        choices.append([f"{key}{mark}{value}" for value in values])
    return product(*choices)


def _check_variant(module: str, found: Program, words: list[str]) -> None:
    """Refuse words that the program does not take, whatever the choices are that they leave
    open.
    """
    given = {key: value for key, mark, value in (word.partition("=") for word in words) if mark}
    empty = [key for key, value in given.items() if _PLACEHOLDER.fullmatch(value)]
    filled = [word for word in words if word.partition("=")[0] not in empty]
    defaults = {field.name: field.metadata.get("default") for field in fields(found.schema)}
    open_groups = [
        name
        for name in found.groups
        if name in empty or (name not in given and defaults.get(name, "") is None)
    ]
    errors = []
    for chosen in product(*(_fitting(found, name, words) for name in open_groups)):
        try:
            _check_resolved(module, found, [*chosen, *filled], empty)
        except InputError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _check_resolved(module: str, found: Program, words: list[str], empty: list[str]) -> None:
    values = read_arguments(words, found.groups)
    if found.groups or module == "benchmark.py":
        config = resolve(found.schema, found.groups, values)
        entry.trainer_arguments(getattr(config, "trainer", {}))
        known: Any = to_dict(config)
    else:  # their dataclasses also look for files, which a page's reader has and a test has not
        try:
            known = OmegaConf.to_container(
                OmegaConf.merge(OmegaConf.structured(found.schema), values)
            )
        except OmegaConfBaseException as error:
            raise InputError(str(error).splitlines()[0]) from error
    for key in empty:
        inner = known
        for part in key.split("."):
            if inner in (None, {}) and _PLACEHOLDER.fullmatch(part):
                break  # a row of an open table, as of guard.prevalence.CLASS
            if not isinstance(inner, dict) or part not in inner:
                raise InputError(f"unknown option {key}")
            inner = inner[part]
