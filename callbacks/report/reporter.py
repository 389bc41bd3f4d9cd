"""What ``adapt.py`` calls for a report: watch the run, look at the stream once more, write the
page.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
from lightning import Callback, Trainer

from holdfast.callbacks.base import Guard
from holdfast.callbacks.predictions import PredictionWriter
from holdfast.callbacks.records import TraceWriter
from holdfast.callbacks.report.cases import CaseReporter
from holdfast.callbacks.report.facts import RunFacts
from holdfast.callbacks.report.figure import FigureReporter
from holdfast.callbacks.report.findings import FindingReporter
from holdfast.callbacks.report.observe import AdaptedObserver
from holdfast.callbacks.report.run import run_report
from holdfast.callbacks.report.task_page import TaskReporter
from holdfast.callbacks.report.told import about, as_text, resamples, shareable
from holdfast.callbacks.report.unupdated import Unupdated, unupdated_pass
from holdfast.callbacks.report.watched import Watched
from holdfast.datamodules import StreamLoader
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.distributed import from_first
from holdfast.tta.methods import METHODS
from holdfast.tta.registry import Registry
from holdfast.tta.worth import Units, held_against

__all__ = [
    "VIEWS",
    "Reporter",
    "RunReporter",
    "create_reporter",
    "register_view",
    "resamples",
    "shareable",
]

#: Files of what a run keeps for the page until it is done.
KEPT = ("stream.adapted", "stream.sums")
#: What a run is held against.
_OTHERS = ("source", "control")


class Reporter(Protocol):
    """Collects what a run's page tells, and writes it."""

    def around(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """The run's callbacks among those of the report."""

    def look_again(
        self, module: AdaptationModule, loader: StreamLoader, trainer: Trainer, method: str
    ) -> None:
        """Ask source and control about the stream."""

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """The metrics, and how source and control would have done."""

    def write(
        self,
        path: Path,
        *,
        name: str,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        settings: Mapping[str, Any],
    ) -> None:
        """Write the page."""


class RunReporter(Watched):
    """Collects what the page tells, and writes it.

    Args:
        checkpoint: the source.
        guard: of the run; None without one.
        writer: keeps predictions.
        tracer: keeps trace and events.
        kept: folder for what it keeps of a run that may be gone on with; None: memory.
    """

    def __init__(
        self,
        checkpoint: SourceCheckpoint,
        guard: Guard | None,
        writer: PredictionWriter,
        tracer: TraceWriter,
        kept: Path | None = None,
    ) -> None:
        said, sums = (kept and kept / name for name in KEPT)
        super().__init__(checkpoint, guard, writer, tracer, sums)
        self.observer = AdaptedObserver(
            guard, checkpoint.feature_mean, checkpoint.feature_var, said
        )
        self.unupdated: Unupdated | None = None
        self.parts = 1

    def around(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """The run's callbacks between those of the report: one sees batches before the guard, one
        behind it.
        """
        return [self.observer, *super().around(callbacks)]

    def look_again(
        self,
        module: AdaptationModule,
        loader: StreamLoader,
        trainer: Trainer,
        method: str,
    ) -> None:
        """Ask source and control about the stream, which all processes do together.

        Args:
            module: new, as it was before the run.
            loader: of the stream.
            trainer: which ran it.
            method: name of the method.
        """
        self.parts = trainer.world_size
        if METHODS[method] is METHODS["source"]:
            return
        self.unupdated = unupdated_pass(
            module,
            loader,
            from_first([row.get("choice") for row in self.tracer.rows]),
            from_first(self.writer.probabilities),
            device=trainer.strategy.root_device,
            precision=trainer.precision_plugin.forward_context(),
            progress=trainer.progress_bar_callback is not None and trainer.is_global_zero,
        )

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """The metrics, and how source and control would have done; those alone where neither was
        asked.

        Args:
            metrics: content of ``metrics.json``.
            groups: (N,) patient or slide of each image.
            columns: (N,) subgroup of each image, by the column's name.
            asked: resamples for the intervals; 0: as many as a page has.
        """
        if self.unupdated is None:
            return dict(metrics)
        others = {name: getattr(self.unupdated, name).probabilities for name in _OTHERS}
        units = Units.of(
            metrics.get("level", "image"),
            *(self.writer.labels, groups, self.writer.domains, columns),
            {"served": self.writer.probabilities, **others},
        )
        return held_against(metrics, units, _OTHERS, resamples(asked))

    def write(
        self,
        path: Path,
        *,
        name: str,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        settings: Mapping[str, Any],
    ) -> None:
        """Write the page.

        Args:
            path: of the page.
            name: of the run.
            metrics: content of ``metrics.json``, held against source and control.
            groups: (N,) patient or slide of each image.
            columns: (N,) subgroup of each image, by the column's name.
            settings: the configuration, ``auto`` resolved.
        """
        facts = RunFacts(
            name=name,
            settings=as_text(settings),
            about=about(settings),
            checkpoint=self.checkpoint,
            metrics=metrics,
            rows=self.tracer.rows,
            events=self.tracer.events,
            probabilities=self.writer.probabilities,
            labels=self.writer.labels,
            domains=self.writer.domains,
            groups=groups,
            columns=columns,
            observer=self.observer,
            levels=self.levels,
            sums=self.sums.rows if self.sums else (),
            unupdated=self.unupdated,
            parts=self.parts,
        )
        path.write_text(run_report(facts), encoding="utf-8")


#: Makes the reporter of a run: of its source, guard, writers, and the folder for what it keeps of a
#: run that may be gone on with, None for memory; arguments as of ``RunReporter``.
View = Callable[
    [SourceCheckpoint, Guard | None, Any, TraceWriter, Path | None],
    Reporter,
]


def _page_of(kind: type[TaskReporter]) -> View:
    """A view that keeps the guard's sums alone."""

    def view(
        checkpoint: SourceCheckpoint,
        guard: Guard | None,
        writer: Any,
        tracer: TraceWriter,
        kept: Path | None,
    ) -> Reporter:
        return kind(checkpoint, guard, writer, tracer, kept and kept / KEPT[1])

    return view


_OURS: dict[str, View] = {
    "classes": RunReporter,
    "cases": _page_of(CaseReporter),
    "findings": _page_of(FindingReporter),
    "figure": _page_of(FigureReporter),
}

#: Pages about runs by the name that a task gives as its ``view``: ours, registered ones, and entry
#: points of the group ``holdfast.views``.
VIEWS: Registry[View] = Registry("view", "holdfast.views", _OURS)
register_view = VIEWS.register


def create_reporter(
    checkpoint: SourceCheckpoint,
    guard: Guard | None,
    writer: Any,
    tracer: TraceWriter,
    kept: Path | None = None,
) -> Reporter:
    """The reporter that the source's task asks for; arguments as of ``RunReporter``.

    Raises:
        InputError: nobody has registered the view.
    """
    view = checkpoint.meaning.view
    VIEWS.refuse_unknown(view)
    return VIEWS[view](checkpoint, guard, writer, tracer, kept)
