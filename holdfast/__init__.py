"""Test-time adaptation for medical imaging that does not collapse.

>>> import holdfast
>>> sorted(holdfast.METHODS)[:3]
['adami', 'alpha_norm', 'cmf']
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import adapt, load_source, train
    from holdfast.callbacks import CollapseGuard
    from holdfast.loop import GuardedMethod, guard
    from holdfast.tta.adaptation import AdaptationModule
    from holdfast.tta.errors import InputError
    from holdfast.tta.guarded import AdaptsAtTestTime
    from holdfast.tta.methods import METHODS, create_method, register_method
    from holdfast.tta.source_facts import source_facts
    from holdfast.tta.step import StepOutputs
    from holdfast.tta.tasks import TASKS, register_task

    __version__: str

__all__ = [
    "METHODS",
    "TASKS",
    "AdaptationModule",
    "AdaptsAtTestTime",
    "CollapseGuard",
    "GuardedMethod",
    "InputError",
    "StepOutputs",
    "adapt",
    "create_method",
    "guard",
    "load_source",
    "register_method",
    "register_task",
    "source_facts",
    "train",
]

# Installed, the parts lie inside this package; in a source tree they stand beside it.
_TREE = Path(__file__).resolve().parent.parent
if (_TREE / "pyproject.toml").is_file() and (_TREE / "tta").is_dir():
    __path__.append(str(_TREE))

#: Where each name lives: it is imported when somebody asks for it, for torch takes seconds.
_HOMES = {
    "METHODS": "holdfast.tta.methods",
    "TASKS": "holdfast.tta.tasks",
    "AdaptationModule": "holdfast.tta.adaptation",
    "AdaptsAtTestTime": "holdfast.tta.guarded",
    "CollapseGuard": "holdfast.callbacks",
    "GuardedMethod": "holdfast.loop",
    "InputError": "holdfast.tta.errors",
    "StepOutputs": "holdfast.tta.step",
    "adapt": "holdfast.api",
    "create_method": "holdfast.tta.methods",
    "guard": "holdfast.loop",
    "load_source": "holdfast.api",
    "register_method": "holdfast.tta.methods",
    "register_task": "holdfast.tta.tasks",
    "source_facts": "holdfast.tta.source_facts",
    "train": "holdfast.api",
}


def __getattr__(name: str) -> Any:
    """A name of the front door, or the version, looked up when somebody asks."""
    if name == "__version__":
        from holdfast.version import version

        return version()
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The names of the front door among the others, for completion."""
    return sorted({*globals(), *__all__})
