"""What happens around a batch: the guard, and the records of a stream."""

from callbacks.alerts import Alerts
from callbacks.guard import CollapseGuard, GuardConfig
from callbacks.records import PredictionWriter, TraceWriter

__all__ = ["Alerts", "CollapseGuard", "GuardConfig", "PredictionWriter", "TraceWriter"]
