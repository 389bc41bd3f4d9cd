"""What ``--help`` prints: a page of what people need first, and more by the name of what it is on.

``--help`` fits a screen or two. ``--help=method`` lists a group's choices with their options, each
option once; ``--help=method.tent`` one choice with what its file sets; ``--help=labels`` an option
in full; ``--help=all`` everything.
"""

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.tta.config import CONFIGS, Groups, group_choices, read_group
from holdfast.tta.errors import InputError
from holdfast.tta.expected import closest
from holdfast.tta.groups import Group
from holdfast.tta.options import opening
from holdfast.tta.told import options_of

#: Columns of a terminal that everybody has room for.
_WIDTH = 100
#: Columns of options and defaults, before their sentences: on the page, and in lists.
_PAGE, _LIST = 26, 36
#: Characters of a number that is shown as it is.
_DIGITS = 6
#: What is left out of a sentence, and the default on which choices differ.
_MORE = "…"


class _Option(NamedTuple):
    name: str
    default: Any
    help: str


def topic_of(argv: Sequence[str]) -> str | None:
    """What help is asked on: "" for the page, None where none is asked for."""
    for word in argv:
        if word in ("--help", "-h", "help"):
            return ""
        if word.startswith("--help="):
            return word.partition("=")[2]
    return None


def explain(schema: type, groups: Groups, usage: str, topic: str = "") -> str:
    """The help on a topic.

    Args:
        schema: dataclass of the options, in the order in which people need them.
        groups: choices of each group.
        usage: what to type, and what it does.
        topic: "" for the page, ``all``, a group, ``group.choice``, or an option.

    Raises:
        InputError: there is nothing of that name.
    """
    groups = {name: groups[name] for name in _names(schema) if name in groups}
    if not topic:
        return _page(schema, groups, usage)
    if topic == "all":
        parts = [_opening(usage), "\n".join(_rows(_plain(schema, groups)))]
        return "\n\n".join([*parts, *(_group(name, schema, groups[name]) for name in groups)])
    return _topic(schema, groups, topic)


def _page(schema: type, groups: Groups, usage: str) -> str:
    """Every option by one line, and every group by its choices' names."""
    lines = [_opening(usage), ""]
    for field in dataclasses.fields(schema):
        lines += _entry(field, schema, groups)
    return "\n".join([*lines, "", _more(schema, groups)])


def _opening(usage: str) -> str:
    return f"{usage}\n\nOptions (YAML files and key=value; later ones override earlier ones):"


def _more(schema: type, groups: Groups) -> str:
    told = "--help=NAME of an option, --help=all of everything"
    if groups:
        name = "method" if "method" in groups else next(iter(groups))
        kind = _field(schema, name).metadata["default"] or min(groups[name])
        told = f"--help={name} of a group, --help={name}.{kind} of a choice, {told}"
    told = f"More: {told}. --print_config prints the options as they would be, and stops."
    return textwrap.fill(told, _WIDTH, break_on_hyphens=False)


def _entry(field: dataclasses.Field[Any], schema: type, groups: Groups) -> list[str]:
    """The lines of the page for an option, a group, or a set of options."""
    name, told = field.name, field.metadata["help"]
    if name in groups:
        return _group_entry(field, schema, groups)
    found = _found(name, schema, groups)
    if len(found) == 1:
        return [_short(name, found[0].default, told)]
    names = ", ".join(option.name.removeprefix(f"{name}.") for option in found)
    return [_short(f"{name}.OPTION", "VALUE", f"{told}: {names}")]


def _group_entry(field: dataclasses.Field[Any], schema: type, groups: Groups) -> list[str]:
    """The lines of a group: what it is, its choices, and those of its options that come first."""
    name, default = field.name, field.metadata["default"]
    given = "" if default else " (default: as in the source checkpoint)"
    lines = [_short(name, default or "NAME", f"{field.metadata['help']}{given}:")]
    choices = textwrap.wrap(", ".join(_kinds(name, groups[name])), _WIDTH - _PAGE)
    lines += [" " * _PAGE + line for line in choices]
    first = field.metadata["first"]
    for option in first:
        default, told = first[option]
        lines.append(_short(f"{name}.{option}", default, told))
    return lines


def _found(name: str, schema: type, groups: Groups) -> list[_Option]:
    """The options of a name, or below it; a group's as its default has them, or else any choice."""
    group, _, rest = name.partition(".")
    if group not in groups:
        return [option for option in _plain(schema, groups) if _below(option.name, name)]
    default = _field(schema, group).metadata["default"]
    for kind in [*([default] if default else []), *_kinds(group, groups[group])]:
        options, values = _of(group, kind, groups[group])
        found = [o for o in _options(options, f"{group}.", values) if _below(o.name, name)]
        if found and rest:
            return found
    return []


def _topic(schema: type, groups: Groups, topic: str) -> str:
    """The help on what is not the whole."""
    group, _, rest = topic.partition(".")
    if topic in groups:
        return _group(topic, schema, groups[topic])
    if group in groups and rest in _kinds(group, groups[group]):
        return _choice(group, rest, groups[group])
    if group in groups:
        if rows := list(_shared(group, schema, groups[group], rest)):
            return "\n".join(rows).lstrip("\n")
    elif found := _found(topic, schema, groups):
        return "\n".join(_rows(found))
    known = [*_names(schema), "all"]
    if group in groups:
        known = [f"{group}.{kind}" for kind in _kinds(group, groups[group])]
    raise InputError(f"there is no help on {topic!r}: {closest(topic, known)}")


def _group(name: str, schema: type, kinds: Mapping[str, type]) -> str:
    """A group: its choices, and the options of all of them, each once."""
    field = _field(schema, name)
    default = field.metadata["default"] or "as in the source checkpoint"
    lines = [f"{name}=NAME  {field.metadata['help']} (default: {default})", ""]
    every = _kinds(name, kinds)
    column = max(map(len, every)) + 4
    for kind in every:
        lines += _wrapped(f"  {kind}", _sentence(name, kind, _of(name, kind, kinds)[0]), column)
    return "\n".join([*lines, *_shared(name, schema, kinds)])


def _choice(group: str, kind: str, kinds: Mapping[str, type]) -> str:
    """One choice: what it is, its command, and its options with what its file sets."""
    options, values = _of(group, kind, kinds)
    head = textwrap.wrap(f"{group}={kind}: {_sentence(group, kind, options)}", _WIDTH)
    head += _comments(group, kind)[:1]
    rows = _rows(_options(options, f"{group}.", values))
    return "\n".join([*head, "", *(rows or ["It has no options."])])


def _shared(group: str, schema: type, kinds: Mapping[str, type], rest: str = "") -> Iterator[str]:
    """Options of a group's choices, those of the same choices together, each with its default where
    they agree on it; what most choices have comes first, then what the default one has.

    Args:
        group: its name.
        schema: dataclass of all options.
        kinds: its choices.
        rest: of an option's name, where others are left out.
    """
    holders: dict[tuple[str, str], dict[str, Any]] = {}
    every = _kinds(group, kinds)
    for kind in every:
        options, values = _of(group, kind, kinds)
        for option in _options(options, f"{group}.", values):
            if not rest or _below(option.name, f"{group}.{rest}"):
                holders.setdefault((option.name, option.help), {})[kind] = option.default
    together: dict[tuple[str, ...], list[_Option]] = {}
    for (name, told), defaults in holders.items():
        same = len({repr(value) for value in defaults.values()}) == 1
        default = next(iter(defaults.values())) if same else _MORE
        together.setdefault(tuple(defaults), []).append(_Option(name, default, told))
    default = _field(schema, group).metadata["default"]
    for names in sorted(together, key=lambda names: (-len(names), default not in names)):
        yield ""
        yield from textwrap.wrap(f"{_which(group, names, every)}:", _WIDTH)
        rows = together[names]
        yield from _rows(rows)
    if any(row.default == _MORE for rows in together.values() for row in rows):
        yield f"\n{_MORE} depends on the choice: --help={group}.NAME tells."


def _which(group: str, names: Sequence[str], every: Sequence[str]) -> str:
    left = [name for name in every if name not in names]
    if not left:
        return "Options of every choice"
    if len(left) < len(names):
        return f"Options of all but {', '.join(left)}"
    if len(names) == 1:
        return f"Options of {group}={names[0]}"
    return f"Options of {', '.join(names)}"


def _kinds(group: str, kinds: Mapping[str, type]) -> list[str]:
    """Names of a group's choices: files, and what a script registered without one."""
    more = kinds.added() if isinstance(kinds, Group) else kinds
    return sorted({*group_choices(group), *more})


def _of(group: str, kind: str, kinds: Mapping[str, type]) -> tuple[type, dict[str, Any]]:
    """The options of a choice, and what its file sets."""
    values = read_group(group, kind, kinds)
    return options_of(group, values.pop("kind"), kinds), values


def _names(schema: type) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


def _field(schema: type, name: str) -> dataclasses.Field[Any]:
    [found] = (field for field in dataclasses.fields(schema) if field.name == name)
    return found


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _plain(schema: type, groups: Groups) -> list[_Option]:
    """The options that belong to no group."""
    return [option for option in _options(schema) if option.name.split(".")[0] not in groups]


def _options(
    schema: Any, prefix: str = "", values: Mapping[str, Any] | None = None
) -> list[_Option]:
    """Every option of a dataclass, and of those inside it.

    Args:
        schema: the dataclass.
        prefix: of the names.
        values: what stands for defaults.
    """
    found = []
    for field in dataclasses.fields(schema):
        make: Any = field.default_factory
        default = (values or {}).get(field.name, make())
        if dataclasses.is_dataclass(default):
            found += _options(type(default), f"{prefix}{field.name}.")
        else:
            found.append(_Option(f"{prefix}{field.name}", default, field.metadata.get("help", "")))
    return found


def _sentence(group: str, kind: str, options: type) -> str:
    """What a choice is: the second line of its file where that is a comment, else the first of its
    dataclass's docstring.
    """
    told = _comments(group, kind)
    return told[1] if len(told) > 1 else opening(options)


def _comments(group: str, kind: str) -> list[str]:
    """The comments with which a choice's file opens: its command, and what it is."""
    path = CONFIGS / group / f"{kind}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()[:2] if path.is_file() else []
    return [line.removeprefix("# ") for line in lines if line.startswith("# ")]


def _rows(options: Iterable[_Option]) -> list[str]:
    """Options with their defaults and whole sentences."""
    return [
        line
        for option in options
        for line in _wrapped(f"  {option.name}={_said(option.default)}", option.help, _LIST)
    ]


def _short(name: str, default: Any, text: str) -> str:
    """A line of the page, its sentence cut to what it has room for."""
    shown = _said(default)
    shown = shown if len(name) + len(shown) <= _WIDTH // 2 else _MORE
    head = f"  {name}={shown}".ljust(_PAGE - 2) + "  "
    return head + _abridged(text, _WIDTH - len(head))


def _wrapped(head: str, text: str, column: int) -> list[str]:
    """Text beside what it is on, its further lines below."""
    lines = textwrap.wrap(text, _WIDTH - column, break_long_words=False, break_on_hyphens=False)
    if len(head) > column - 2:
        return [head, *(" " * column + line for line in lines)]
    first, *rest = lines or [""]
    return [f"{head.ljust(column)}{first}".rstrip(), *(" " * column + line for line in rest)]


def _said(value: Any) -> str:
    """A default as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and len(str(value)) > _DIGITS:
        return f"{value:.{_DIGITS - 2}g}"
    if isinstance(value, list):
        return f"[{','.join(map(_said, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {_said(item)}' for key, item in value.items())}}}"
    return str(value)


def _abridged(text: str, room: int) -> str:
    """A sentence, or its beginning, cut where it pauses."""
    if len(text) <= room:
        return text
    for pause in ("; ", ": ", ", ", " "):
        place = text.rfind(pause, 0, room - 1)
        if place > room // 2:
            return f"{text[:place]} {_MORE}"
    return f"{text[: room - 2]} {_MORE}"
