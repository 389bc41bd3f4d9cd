"""What reporters of all tasks watch of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback

from holdfast.callbacks.base import Guard
from holdfast.callbacks.guard.guard import CollapseGuard
from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.records import TraceWriter
from holdfast.callbacks.report.observe import SumsObserver
from holdfast.tta.checkpoint import SourceCheckpoint


class Watched:
    """A run's source, guard and writers, and the sums of a guard that alarms by them.

    Args:
        checkpoint: the source.
        guard: of the run; None without one.
        writer: keeps what was served.
        tracer: keeps trace and events.
        sums: file for the guard's sums of a run that may be gone on with; None: memory.
    """

    def __init__(
        self,
        checkpoint: SourceCheckpoint,
        guard: Guard | None,
        writer: Any,
        tracer: TraceWriter,
        sums: Path | None = None,
    ) -> None:
        self.checkpoint, self.guard, self.writer, self.tracer = checkpoint, guard, writer, tracer
        self.sums = SumsObserver(guard, sums) if isinstance(guard, CollapseGuard) else None

    @property
    def levels(self) -> Levels | None:
        """The guard's levels, where it has any."""
        return self.guard.levels if isinstance(self.guard, CollapseGuard) else None

    def around(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """The run's callbacks, and one behind the guard that sees its sums."""
        return [*callbacks, *([self.sums] if self.sums else [])]
