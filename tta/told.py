"""What ``--help`` says of a group's choices, written down: torch takes seconds to import, and no
page of help needs it.

``python -m holdfast.tta.told`` writes ``options.json`` anew, from the dataclasses of the choices'
options; a test holds it against them.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from holdfast.tta import groups
from holdfast.tta.config import Groups, group_choices, read_group
from holdfast.tta.options import opening, option

#: What is written down, beside this module.
FILE = Path(__file__).with_name("options.json")
#: Every group, by the name that it has in all programs.
GROUPS: Mapping[str, groups.Group] = {
    "data": groups.DATA,
    "model": groups.NETWORKS,
    "calibrate": groups.CALIBRATIONS,
    "method": groups.METHODS,
    "guard": groups.GUARDS,
    "stream": groups.STREAMS,
    "shift": groups.SHIFTS,
    "preflight": groups.PREFLIGHTS,
}


def options_of(group: str, kind: str, kinds: Mapping[str, type]) -> type:
    """The dataclass of a choice's options, as ``--help`` needs it: names, defaults, sentences.

    It is the choice's own where that is imported already or is somebody else's, and otherwise one
    made of what is written down.

    Args:
        group: its name.
        kind: of the choice.
        kinds: choices of the group.

    Raises:
        KeyError: there is no such choice.
    """
    name = _written()["choices"].get(group, {}).get(kind)
    if name is None or not isinstance(kinds, groups.Group) or kinds.imported:
        return kinds[kind]
    return _made(name)


def described(every: Groups = GROUPS) -> dict[str, Any]:
    """What is to be written down: the dataclass of each choice by name, and of each dataclass what
    it adds to its bases.

    Args:
        every: groups, of which choices count that have a file.
    """
    choices: dict[str, dict[str, str]] = {}
    options: dict[str, Any] = {}
    for group, kinds in every.items():
        named = (read_group(group, choice, kinds)["kind"] for choice in group_choices(group))
        choices[group] = {kind: kinds[kind].__name__ for kind in sorted(set(named))}
        for kind in choices[group]:
            options |= _described(kinds[kind])
    return {"choices": choices, "options": dict(sorted(options.items()))}


def write() -> None:
    """Write it anew."""
    text = json.dumps(described(), indent=1, ensure_ascii=False)
    FILE.write_text(f"{text}\n", encoding="utf-8")


def _described(config: type) -> dict[str, Any]:
    """What is written of a dataclass, of its bases, and of those inside it, by their names."""
    bases = [base for base in config.__bases__ if dataclasses.is_dataclass(base)]
    found: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for field in _own(config, bases):
        make: Any = field.default_factory
        default = make()
        if dataclasses.is_dataclass(default):
            found |= _described(type(default))
            own[field.name] = {"of": type(default).__name__, "help": field.metadata["help"]}
        else:
            own[field.name] = {"default": default, "help": field.metadata["help"]}
    for base in bases:
        found |= _described(base)
    told = {"told": opening(config), "bases": [base.__name__ for base in bases], "options": own}
    return {**found, config.__name__: told}


def _own(config: type, bases: list[type]) -> Iterator[dataclasses.Field[Any]]:
    """The fields that a dataclass does not have as they are from its bases."""
    inherited = [base.__dict__["__dataclass_fields__"] for base in bases]
    for field in dataclasses.fields(config):
        if not any(names.get(field.name) is field for names in inherited):
            yield field


@cache
def _written() -> dict[str, Any]:
    written: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return written


@cache
def _made(name: str) -> type:
    """A dataclass as it is written down."""
    told = _written()["options"][name]
    own = [
        (field, Any, option(_made(of["of"])() if "of" in of else of["default"], of["help"]))
        for field, of in told["options"].items()
    ]
    bases = tuple(_made(base) for base in told["bases"])
    return dataclasses.make_dataclass(name, own, bases=bases, namespace={"__doc__": told["told"]})


if __name__ == "__main__":
    write()
