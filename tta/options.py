"""How a configuration dataclass documents its options, and refuses what is out of range."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from holdfast.tta.errors import InputError


def option(
    default: Any, help: str, first: Sequence[str] | Mapping[str, tuple[Any, str]] = ()
) -> Any:
    """A dataclass field with a default, copied for each instance, and what ``--help`` says of it.

    Options are listed in the order of their fields, so what people need first comes first.

    Args:
        default: value where none is given; of a group, the choice.
        help: a sentence.
        first: of what has options of its own, those that people need first; of a group with their
            defaults and sentences, which are then not looked up.
    """
    return field(
        default_factory=lambda: copy.deepcopy(default),
        metadata={"help": help, "default": default, "first": first},
    )


def opening(documented: object) -> str:
    """The first paragraph of a docstring, on one line; empty where there is none.

    >>> opening(InputError)
    'Something the user gave cannot be used; the message is one sentence that names the remedy.'
    """
    paragraph = inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def within(
    config: object,
    name: str,
    low: float,
    high: float,
    *,
    left: bool = True,
    right: bool = True,
    group: str = "method",
) -> None:
    """Refuse a hyperparameter outside its range; None is let through.

    Args:
        config: the hyperparameters.
        name: which one.
        low: least value.
        high: greatest value.
        left: whether ``low`` itself is allowed.
        right: whether ``high`` itself is.
        group: of the configuration, as the message names it.
    """
    value = getattr(config, name)
    if value is None:
        return
    if not ((low <= value if left else low < value) and (value <= high if right else value < high)):
        raise InputError(
            f"{group}.{name}={value} is outside {'[' if left else '('}{low}, "
            f"{high}{']' if right else ')'}"
        )
