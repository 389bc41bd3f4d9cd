"""Configuration: YAML files and key=value words, merged by OmegaConf and validated by dataclasses.

A *group* (data, model, method, stream, shift, guard) is an option with choices: ``data=npz`` takes
the options of ``configs/data/npz.yaml``, whose ``kind`` (the file's name by default) selects the
dataclass that validates them. Naming a choice starts its group afresh. Later words override earlier
files; a resolved configuration, saved as YAML, is itself a valid argument.
"""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from holdfast.tta.errors import InputError
from holdfast.tta.expected import check_names, wrong_value
from holdfast.tta.expected import closest as closest
from holdfast.tta.references import followed, merged, refuse_references

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

T = TypeVar("T")
Groups = Mapping[str, Mapping[str, type]]


@dataclass
class Choice(Generic[T]):
    """What was chosen of a group: the kind, and its validated options."""

    kind: str
    options: T


def read_arguments(
    argv: Sequence[str], groups: Groups, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Merge YAML files and key=value words into one plain, still unvalidated dictionary.

    Args:
        argv: command-line words, each a YAML file or key=value.
        groups: choices of each group.
        base: values that everything else overrides.

    Raises:
        InputError: a word has another form, or a file cannot be read.
    """
    files = [word for word in argv if _names_file(word)]
    words = [word for word in argv if word not in files]
    given = [_read_word(word) for word in words]
    return _layered(base, [*map(_read_file, files)], given, groups)


def read_values(
    given: Mapping[str, Any], groups: Groups, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The same of Python values.

    Args:
        given: options by name. Those of a group stand after a dot, ``{"method.lr": 1e-3}``, or in a
            dictionary with the choice as its ``kind``; a validated ``Choice`` and a configuration
            dataclass of one of the group's kinds are taken as well.
        groups: choices of each group.
        base: values that everything else overrides.

    >>> read_values({"model": "vit", "model.depth": 2}, {"model": {"vit": dict}})["model"]["depth"]
    2
    """
    layers = []
    for name, value in given.items():
        group, _, rest = name.partition(".")
        if value is None and group in groups and not rest:
            continue  # left open
        value = _plain(value, groups.get(group, {}))
        for part in reversed(rest.split(".") if rest else []):
            value = {part: value}
        layers.append({group: value})
    return _layered(base, [], layers, groups)


def _plain(value: Any, kinds: Mapping[str, type]) -> Any:
    """A Python value as YAML would have given it."""
    if isinstance(value, Choice):
        return {"kind": value.kind, **dataclasses.asdict(value.options)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [name for name, kind in kinds.items() if kind is type(value)]
        return {**({"kind": names[0]} if names else {}), **dataclasses.asdict(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, {}) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, {}) for item in value]
    return str(value) if isinstance(value, Path) else value


def _layered(
    base: Mapping[str, Any] | None,
    files: Sequence[dict[str, Any]],
    given: Sequence[dict[str, Any]],
    groups: Groups,
) -> dict[str, Any]:
    """All values, later ones over earlier ones; what is given comes last."""
    # Choices come before the options of their groups, in whichever order they were given.
    chosen = sorted(
        given, key=lambda layer: any(_sets_option(layer.get(group)) for group in groups)
    )
    layers = [*files, *chosen]
    for layer in layers:
        _refuse_secrets(layer)
    result: dict[str, Any] = {}
    for layer in [dict(base or {}), *layers]:
        for key, value in _without_none(layer).items():
            if key in groups:
                result[key] = _merge_group(result.get(key), value, key, groups[key])
            elif isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merged(result[key], value)
            else:
                result[key] = value
    return result


def resolve(schema: type[T], groups: Groups, values: Mapping[str, Any]) -> T:
    """Validate merged values against the schema; fields named after groups become ``Choice``s.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range.
    """
    plain = {key: value for key, value in values.items() if key not in groups}
    # Looked for where an option is misspelt: plug-ins must be imported for it.
    elsewhere = partial(_names_inside, schema, groups)
    config = _validated(schema, plain, "", elsewhere)
    for group in groups:
        if not hasattr(config, group):
            continue
        default = getattr(config, group)
        value = values.get(group)
        if value is None or "kind" not in value:
            value = {**read_group(group, default, groups[group]), **(value or {})}
        value = dict(value)
        kind = value.pop("kind")
        if kind not in groups[group]:
            raise InputError(f"unknown {group}.kind {kind!r}: {closest(str(kind), groups[group])}")
        options: Any = _validated(groups[group][kind], value, f"{group}.", elsewhere)
        setattr(config, group, Choice(kind, options))
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested containers, in the form that ``read_arguments`` takes."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Choice):
            value = {"kind": value.kind, **dataclasses.asdict(value.options)}
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        result[field.name] = value
    return result


def save(config: Any, path: Path, command: str) -> None:
    """Write the resolved configuration as YAML, its first line the command that uses it."""
    path.write_text(f"# {command}\n{as_yaml(config)}", encoding="utf-8")


def as_yaml(config: Any) -> str:
    """The resolved configuration as YAML, which is itself an argument."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def group_choices(group: str) -> list[str]:
    """Names of the YAML files of a group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _names_file(word: str) -> bool:
    """Whether a word is a YAML file's, though folders of sweeps often have a = in their names."""
    return "=" not in word or (
        word.endswith((".yaml", ".yml")) and Path(word).expanduser().is_file()
    )


def _read_word(word: str) -> dict[str, Any]:
    if word.startswith("-"):
        raise InputError(f"{word!r} starts with a dash: write {word.lstrip('-')!r}")
    key, _, value = word.partition("=")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise InputError(f"{word!r} is not of the form key=value")
    if value.startswith("%"):  # a format of dates; to YAML a line of its own
        word = f"{key}={json.dumps(value)}"
    try:
        node = OmegaConf.from_dotlist([word])
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise InputError(
            f"{word!r} has a value that is not YAML: close its brackets, or put it in quotes "
            "twice, "
            f"""{key}='"…"'"""
        ) from error
    return followed(node, repr(word))


def _remedy(word: str) -> str:
    """What to do about a word that is no option: a shell parts a list at its spaces."""
    if word.endswith((",", "]", "}")):
        return "write a list without spaces, key=[a,b], or the whole option in quotes, 'key=[a, b]'"
    return "--help lists the options"


def _read_file(word: str) -> dict[str, Any]:
    path = Path(word)
    if word.startswith("-"):
        raise InputError(
            f"unknown flag {word!r}: options are written key=value, and --help lists them"
        )
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{word!r} is neither a YAML file nor key=value: {_remedy(word)}")
    if not path.is_file():
        raise InputError(f"the configuration file {word} does not exist")
    return _load_yaml(path)


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1},"
        reason = getattr(error, "problem", None) or "it is no text of options"
        raise InputError(
            f"{path}{place} is not readable YAML ({reason}): write one 'key: value' a line"
        ) from error
    if not OmegaConf.is_dict(loaded):
        raise InputError(f"{path} must hold options, one 'key: value' a line")
    return followed(loaded, str(path))


def _sets_option(value: Any) -> bool:
    """Whether a word sets an option of a group, rather than the choice itself (``method=tent``,
    ``method.kind=tent``).
    """
    return isinstance(value, dict) and "kind" not in value


def _refuse_secrets(values: Mapping[str, Any], prefix: str = "") -> None:
    """What is configured is written to files and loggers, so no secret may be among it."""
    for key, value in values.items():
        if re.search(r"(?i)(api_?key|password|passwd|secret|token)$", str(key)):
            raise InputError(
                f"{prefix}{key} would be written to config.yaml and to loggers: secrets belong "
                "into the environment, "
                "W&B's into WANDB_API_KEY"
            )
        if isinstance(value, dict):
            _refuse_secrets(value, f"{prefix}{key}.")


def _refuse_nan(values: Mapping[str, Any], prefix: str) -> None:
    """A NaN passes every check of a range, and switches off whatever is compared with it."""
    for key, value in values.items():
        if isinstance(value, float) and math.isnan(value):
            raise InputError(
                f"{prefix}{key} is not a number: give one, or null where the option may be left out"
            )
        if isinstance(value, Mapping):
            _refuse_nan(value, f"{prefix}{key}.")


def _without_none(value: Any) -> Any:
    """The string "None", which W&B sweeps write, means null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items()}
    return None if value == "None" else value


def _merge_group(
    current: dict[str, Any] | None, value: Any, group: str, kinds: Iterable[str]
) -> dict[str, Any] | None:
    if isinstance(value, bool):
        value = "on" if value else "off"  # YAML's booleans
    if value is None:
        value = "none" if "none" in group_choices(group) else None
    if value is None:
        return None
    if not isinstance(value, dict):
        return read_group(group, str(value), kinds)
    if "kind" in value and (current is None or current.get("kind") != value["kind"]):
        kind = {True: "on", False: "off"}.get(value["kind"], value["kind"])
        return {**read_group(group, str(kind), kinds), **value, "kind": kind}
    return merged(current or {}, value)


def read_group(group: str, name: str, kinds: Iterable[str]) -> dict[str, Any]:
    """The options of a choice; a kind that somebody registered without a file has its dataclass's
    defaults.
    """
    path = CONFIGS / group / f"{name}.yaml"
    if name not in group_choices(group):
        if name in kinds:
            return {"kind": name}
        if named := _named_choice(name, kinds):
            return named
        raise InputError(
            f"unknown {group} {name!r}: {closest(name, {*group_choices(group), *kinds})}"
        )
    values = copy.deepcopy(_choice(path))
    kind = values.pop("kind", name)
    return {"kind": {True: "on", False: "off"}.get(kind, kind), **values}


@cache
def _choice(path: Path) -> dict[str, Any]:
    """What a choice's file says; a page of help asks for each many times."""
    return _load_yaml(path) if _has_content(path) else {}


def _named_choice(name: str, kinds: Iterable[str]) -> dict[str, Any] | None:
    """Kind and name of a choice that has a name of its own: ``timm:resnet50``, or a function
    ``FILE.py:function``; None where it has not.
    """
    kind, _, rest = name.partition(":")
    if rest and kind in kinds:
        return {"kind": kind, "name": rest}
    return {"kind": "file", "name": name} if ".py:" in name and "file" in kinds else None


def _has_content(path: Path) -> bool:
    return any(
        line.strip() and not line.lstrip().startswith("#") for line in path.read_text().splitlines()
    )


def validated(schema: type[T], given: Mapping[str, Any]) -> T:
    """A dataclass of options from Python values, checked as words are.

    Raises:
        InputError: an unknown name, a value of the wrong type or out of range.
    """
    return _validated(schema, {name: _plain(value, {}) for name, value in given.items()}, "")


def _validated(
    schema: type[T],
    values: Mapping[str, Any],
    prefix: str,
    elsewhere: Callable[[], Mapping[str, Sequence[str]]] = dict,
) -> T:
    check_names(schema, values, prefix, elsewhere)
    hints = get_type_hints(schema)
    _refuse_nan(values, prefix)
    for key, value in values.items():
        refuse_references(value, f"{prefix}{key}")
    values = {key: _as_float(value, hints[key]) for key, value in values.items()}
    try:
        known = _structured(schema)  # type: ignore[arg-type]  # mypy: a class of T is not hashable
        result = OmegaConf.to_object(OmegaConf.merge(known, dict(values)))
    except OmegaConfBaseException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        path = str(getattr(error, "full_key", "") or "")
        raise InputError(wrong_value(schema, values, path, prefix)) from error
    return result  # type: ignore[return-value]


@cache
def _structured(schema: type) -> Any:
    """The schema as OmegaConf has it, whose merge copies it; it takes longer to make."""
    return OmegaConf.structured(schema)


def _names_inside(schema: type, groups: Groups) -> dict[str, list[str]]:
    """Names of all options that belong to another one, with the choices that have them."""
    inside: dict[str, list[str]] = {}
    for field in dataclasses.fields(schema):
        kinds = groups.get(field.name, {})
        for kind, options in kinds.items():
            for option in dataclasses.fields(options):
                inside.setdefault(f"{field.name}.{option.name}", []).append(f"{field.name}={kind}")
        hint = get_type_hints(schema)[field.name]
        names = [option.name for option in dataclasses.fields(hint)] if _is_config(hint) else []
        names += [] if kinds else field.metadata.get("first", ())
        inside |= {f"{field.name}.{name}": [] for name in names}
    return inside


def _is_config(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and isinstance(hint, type)


def _as_float(value: Any, hint: Any) -> Any:
    """Whole numbers where a union with float is asked for: OmegaConf takes no int there."""
    options = get_args(hint) if get_origin(hint) is not None else ()
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and float in options
        and int not in options
    ):
        return float(value)
    return value
