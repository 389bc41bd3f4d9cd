"""What happens around a batch: the guard, and the records of a stream."""

from holdfast.callbacks.alerts import Alerts
from holdfast.callbacks.guard import CollapseGuard, GuardConfig
from holdfast.callbacks.policies import POLICIES, PolicyGuard
from holdfast.callbacks.predictions import PredictionWriter
from holdfast.callbacks.records import TraceWriter
from holdfast.callbacks.registry import GUARDS, create_guard

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
