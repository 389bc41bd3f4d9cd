"""The words that a program takes, as a shell completes them."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from holdfast.tta.config import Groups, group_choices

#: A value that no shell takes for something else.
_PLAIN = re.compile(r"[\w.+-]+")


def words(schema: type, groups: Groups) -> list[str]:
    """Every option as ``name=``, and as ``name=value`` for each value that it has the choice of.

    Args:
        schema: dataclass of the options.
        groups: choices of each group.
    """
    found: list[str] = []
    for field in dataclasses.fields(schema):
        if field.name in groups:
            found += _of_group(field.name, groups[field.name])
        else:
            found += _of_option(schema, field, "")
    return list(dict.fromkeys(found))


def _of_group(name: str, kinds: Mapping[str, type]) -> Iterator[str]:
    yield f"{name}="
    yield from _valued(name, sorted({*group_choices(name), *kinds}))
    for kind in dict.fromkeys(kinds.values()):
        for field in dataclasses.fields(kind):
            yield from _of_option(kind, field, f"{name}.")


def _of_option(owner: type, field: dataclasses.Field[Any], prefix: str) -> Iterator[str]:
    name = f"{prefix}{field.name}"
    make: Any = field.default_factory
    default = None if make is dataclasses.MISSING else make()
    if dataclasses.is_dataclass(default):
        for inner in dataclasses.fields(default):
            yield from _of_option(type(default), inner, f"{name}.")
        return
    yield f"{name}="
    yield from _valued(name, _choices(get_type_hints(owner)[field.name]))


def _choices(hint: Any) -> Iterator[str]:
    """The values of an option that has but a few."""
    if hint is bool:
        yield from ("true", "false")
    elif hint is NoneType:
        yield "null"
    elif get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif get_origin(hint) not in (list, dict, tuple):
        for part in get_args(hint):  # of a union
            yield from _choices(part)


def _valued(name: str, values: Iterable[str]) -> Iterator[str]:
    chosen = [value for value in values if _PLAIN.fullmatch(value)]
    if chosen != ["null"]:  # of a number or a path, say
        yield from (f"{name}={value}" for value in chosen)
