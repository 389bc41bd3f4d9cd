"""What happens around a batch: the guard, and the records of a stream."""

from callbacks.guard import CollapseGuard, GuardConfig
from callbacks.records import PredictionWriter, TraceWriter

__all__ = ["CollapseGuard", "GuardConfig", "PredictionWriter", "TraceWriter"]
