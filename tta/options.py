"""How a configuration dataclass documents its options."""

import copy
from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default, copied for each instance, and the sentence that ``--help`` prints for it."""
    return field(default_factory=lambda: copy.deepcopy(default), metadata={"help": help, "default": default})
