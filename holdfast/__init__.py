"""Test-time adaptation for medical imaging that does not collapse."""

from pathlib import Path

# Installed, the parts lie inside this package; in a source tree they stand beside it.
_TREE = Path(__file__).resolve().parent.parent
if (_TREE / "pyproject.toml").is_file() and (_TREE / "tta").is_dir():
    __path__.append(str(_TREE))


def __getattr__(name: str) -> str:
    """``holdfast.__version__``, looked up when somebody asks."""
    if name == "__version__":
        from holdfast.version import version

        return version()
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
