"""What happens around a batch: the guard, and the records of a stream."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.callbacks.alerts import Alerts
    from holdfast.callbacks.guard.guard import CollapseGuard
    from holdfast.callbacks.policies import POLICIES, PolicyGuard
    from holdfast.callbacks.predictions import PredictionWriter
    from holdfast.callbacks.records import TraceWriter
    from holdfast.callbacks.registry import GUARDS, create_guard
    from holdfast.callbacks.settings import GuardConfig

__all__ = [
    "GUARDS",
    "POLICIES",
    "Alerts",
    "CollapseGuard",
    "GuardConfig",
    "PolicyGuard",
    "PredictionWriter",
    "TraceWriter",
    "create_guard",
]

#: Where each name lives: it is imported when somebody asks for it, for torch takes seconds.
_HOMES = {
    "GUARDS": "holdfast.callbacks.registry",
    "POLICIES": "holdfast.callbacks.policies",
    "Alerts": "holdfast.callbacks.alerts",
    "CollapseGuard": "holdfast.callbacks.guard.guard",
    "GuardConfig": "holdfast.callbacks.settings",
    "PolicyGuard": "holdfast.callbacks.policies",
    "PredictionWriter": "holdfast.callbacks.predictions",
    "TraceWriter": "holdfast.callbacks.records",
    "create_guard": "holdfast.callbacks.registry",
}


def __getattr__(name: str) -> Any:
    """A name of these, looked up when somebody asks."""
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.callbacks' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
