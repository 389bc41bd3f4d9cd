"""Which version this is."""

import tomllib
from importlib import metadata
from pathlib import Path

_TREE = Path(__file__).resolve().parent.parent


def version() -> str:
    """The installed package's version; that of ``pyproject.toml`` in a tree that is not installed.

    >>> version()[0].isdigit()
    True
    """
    try:
        return metadata.version("holdfast")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((_TREE / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
