"""What an option takes, in words: for the sentence that refuses another value, or another name."""

import dataclasses
import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from holdfast.tta.errors import InputError

#: Options or choices that a sentence lists.
_LISTED = 3
#: What YAML makes of on and off, and what somebody may mean who writes them.
_SWITCHES = {False: ("off", "disabled"), True: ("on", "online")}
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    dict: "options of its own",
    list: "a list",
}


def closest(word: str, names: Iterable[str]) -> str:
    """A half-sentence that lists the names, the likeliest first when there is one."""
    names = sorted(names)
    match = likeliest(word, names)
    known = f"there are: {', '.join(names)}" if names else "there are none"
    return known if match is None else f"did you mean {match}? ({known})"


def likeliest(word: str, names: Iterable[str]) -> str | None:
    """Which of the names was meant by a misspelt one; None where none is like it."""
    return next(iter(difflib.get_close_matches(word, list(names), n=1)), None)


def check_names(
    schema: type,
    values: Mapping[str, Any],
    prefix: str = "",
    elsewhere: Callable[[], Mapping[str, Sequence[str]]] = dict,
) -> None:
    """Refuse options that there are not, and values where options are expected.

    Args:
        schema: dataclass of the options.
        values: given ones, nested.
        prefix: of their names, such as ``method.``.
        elsewhere: tells further options, for one that was looked for in the wrong place; by name,
            the choices that have it.

    Raises:
        InputError: there is one.
    """
    hints = get_type_hints(schema)
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise InputError(f"unknown option {name}: {_meant(str(key), name, hints, elsewhere())}")
        nested = next((h for h in _alternatives(hints[key]) if dataclasses.is_dataclass(h)), None)
        if nested is None or value is None:
            continue
        if not isinstance(value, Mapping):
            raise InputError(f"{name}={_typed(value)} is no option: {_inside(nested, name, value)}")
        check_names(nested, value, f"{name}.", elsewhere)  # type: ignore[arg-type]


def _meant(
    key: str, name: str, known: Iterable[str], elsewhere: Mapping[str, Sequence[str]]
) -> str:
    """What may have been meant by an option that there is not."""
    if choices := elsewhere.get(name):
        more = ", …" if len(choices) > _LISTED else ""
        return f"it is one of {', '.join(choices[:_LISTED])}{more}"
    meant = [other for other in elsewhere if other.rpartition(".")[2] == key]
    return f"did you mean {' or '.join(meant[:_LISTED])}?" if meant else closest(key, known)


def wrong_value(schema: type, values: Mapping[str, Any], path: str, prefix: str) -> str:
    """The sentence for a value that an option does not take.

    Args:
        schema: dataclass of the options.
        values: given ones, nested.
        path: of the option in them, such as ``wandb.tags[0]``.
        prefix: of its name.
    """
    hint: Any = schema
    value: Any = values
    name = prefix.rstrip(".")
    for part in re.findall(r"\w+", path):
        listed = isinstance(value, list) and part.isdigit()
        if listed:
            hint = (*get_args(hint), Any)[0]
            value = value[int(part)] if int(part) < len(value) else None
        else:
            hint = get_type_hints(hint).get(part, Any) if dataclasses.is_dataclass(hint) else Any
            value = value.get(part) if isinstance(value, Mapping) else value
            name = f"{name}.{part}".lstrip(".")
    if any(get_origin(h) is list for h in _alternatives(hint)) and not isinstance(value, list):
        return f"{name} is a list: write {name}=[{value}], items between brackets"
    if get_origin(hint) is dict:
        return f"{name} has options of its own: write {name}.OPTION={value}"
    return f"{name}={_typed(value)}: expected {in_words(hint)}"


def _typed(value: Any) -> str:
    """A value as somebody would type it."""
    if value is None:
        return "null"
    return _SWITCHES[value][0] if isinstance(value, bool) else str(value)


def in_words(hint: Any) -> str:
    """What a type takes.

    >>> in_words(float | Literal["auto"] | None)
    'a number, auto or null'
    """
    words = list(dict.fromkeys(word for part in _alternatives(hint) for word in _words(part)))
    lead = "one of " if len(words) > 2 and get_origin(_alternatives(hint)[0]) is Literal else ""
    return lead + (f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0])


def _words(part: Any) -> list[str]:
    if get_origin(part) is Literal:
        return [str(choice) for choice in get_args(part)]
    inner = get_args(part)
    if get_origin(part) is list and inner:
        return [f"a list, each {in_words(inner[0])}"]
    if dataclasses.is_dataclass(part):
        return [_WORDS[dict]]
    return [_WORDS.get(get_origin(part) or part, "another value")]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _inside(schema: Any, name: str, value: Any) -> str:
    """Where a value belongs that was given to a whole group of options."""
    for key, hint in get_type_hints(schema).items():
        for part in _alternatives(hint):
            words = _SWITCHES[value] if isinstance(value, bool) else (value,)
            fitting = [word for word in words if word in get_args(part)]
            if get_origin(part) is Literal and fitting:
                return f"write {name}.{key}={fitting[0]}"
    names = [f"{name}.{key}" for key in get_type_hints(schema)]
    return f"it has options of its own, {', '.join(names)}"
