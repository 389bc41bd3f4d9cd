"""What happens around a batch: the guard, and the records of a stream."""

from callbacks.alerts import Alerts
from callbacks.guard import CollapseGuard, GuardConfig
from callbacks.policies import POLICIES, PolicyGuard
from callbacks.records import PredictionWriter, TraceWriter
from callbacks.registry import GUARDS, create_guard

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
