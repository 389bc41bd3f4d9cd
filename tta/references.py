"""References between options, ``${seed}``: followed within a YAML file of the user's, and nowhere
else.

What is configured is written to ``config.yaml`` and to loggers, and some of it comes from
checkpoints: neither may read the environment.
"""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from holdfast.tta.errors import InputError

_PLAIN = re.compile(r"\$\{\.*\w+(\.\w+)*\}")


def followed(node: Any, where: str) -> dict[str, Any]:
    """The options of a file or word as a plain dictionary, its references to each other followed.

    Args:
        node: as OmegaConf read it.
        where: the file or word, for the sentence.

    Raises:
        InputError: a reference is to something else than an option of the same file.
    """
    for text in _texts(OmegaConf.to_container(node, resolve=False)):
        if "${" in _PLAIN.sub("", text):
            raise InputError(
                f"{where} has {text!r}, which would read the environment or call a function, and "
                "options are written to "
                "config.yaml and loggers: write the value itself (secrets have options of their "
                "own, "
                "guard.alert.url=env:NAME)"
            )
    try:
        container = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            f"{where} has a reference to an option that is not in the same file: write the value "
            "itself"
        ) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def refuse_references(values: Any, name: str) -> None:
    """Refuse what still looks like a reference: it came with a checkpoint, say, and is never
    followed.

    Raises:
        InputError: there is one.
    """
    for text in _texts(values):
        if "${" in text:
            raise InputError(
                f"{name} holds {text!r}, a reference from outside of your own YAML files, which is "
                "not followed: write the "
                "value itself"
            )


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; what the second says counts, and nothing is followed."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _texts(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values]
    if isinstance(values, Mapping):
        return [text for pair in values.items() for part in pair for text in _texts(part)]
    if isinstance(values, list | tuple):
        return [text for value in values for text in _texts(value)]
    return []
