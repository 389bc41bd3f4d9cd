"""The page about a run of a task other than one label an image: what such pages share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from lightning import Trainer
from torch import Tensor

from holdfast.callbacks.guard.modes import Levels
from holdfast.callbacks.leaving import course
from holdfast.callbacks.report import guarded, page
from holdfast.callbacks.report.told import about, as_text
from holdfast.callbacks.report.unupdated import ask
from holdfast.callbacks.report.watched import Watched
from holdfast.callbacks.trajectory import trajectory
from holdfast.datamodules import StreamLoader
from holdfast.datamodules.streams.window import counted, taken
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.batches import truth_of
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.methods import METHODS
from holdfast.tta.results import headline

#: Heading of a section, and its parts, which are HTML.
Section = tuple[str, Sequence[str]]
#: Who is asked about the stream besides, without updates.
UNUPDATED = ("source", "control")


@dataclass(frozen=True)
class GuardFacts:
    """What sections about the guard ask of a run."""

    rows: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    levels: Levels | None
    sums: Sequence[Mapping[str, float]]


class _HoldsFacts:
    """The facts in the place where those sections look for them."""

    def __init__(self, facts: GuardFacts) -> None:
        self.facts: Any = facts


class TaskReporter(Watched, ABC):
    """Collects what the page tells, and writes it; subclasses say what a task adds."""

    #: What a prediction is of, in a word.
    noun: ClassVar[str] = "image"
    #: The figure that the page leads with, by its key in ``metrics.json`` and in words.
    leads: tuple[str, str]

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What source and control said, by their names; empty before ``look_again``."""
        return {}

    # What a task adds

    def take(self, name: str, output: Tensor, truth: Tensor | None, index: Sequence[int]) -> None:
        """Take in, of all processes, what source or control said of this process's images.

        Args:
            name: one of ``UNUPDATED``.
            output: (N, ...) as the task has it, without images that stand there twice.
            truth: (N, ...) what is true of them, or None.
            index: (N,) their rows in the image set.
        """
        known = {} if truth is None else {"truth": truth}
        own = batch_of_all({"output": output.cpu(), **known})
        self.kept[name].add(own["output"], own.get("truth"))

    @abstractmethod
    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """The metrics, and ``against``: how source and control would have done.

        Args:
            metrics: content of ``metrics.json``.
            groups: (N,) patient of each image.
            columns: (N,) subgroup of each, by the column's name.
            asked: resamples for the intervals; 0: as many as a page has.
        """

    @abstractmethod
    def head(self, metrics: Mapping[str, Any], method: str) -> list[str]:
        """What stands at the top."""

    @abstractmethod
    def sections(self, metrics: Mapping[str, Any]) -> list[Section]:
        """Those between the guard's and the settings."""

    # What all do alike

    def over_the_stream(self, caption: str) -> Section:
        """The figure and the shares of predictions over the course of the stream.

        Args:
            caption: what the shares are of.
        """
        shown = {} if self.levels is None else self.levels.shown
        rows, events = self.tracer.rows, self.tracer.events
        picture = page.figure(
            lambda: trajectory(rows, events, course(self.writer), shown, ""), caption
        )
        return "Over the stream", [picture]

    @torch.no_grad()
    def look_again(
        self, module: AdaptationModule, loader: StreamLoader, trainer: Trainer, method: str
    ) -> None:
        """Ask source and control about the stream, which all processes do together.

        Args:
            module: new, as it was before the run.
            loader: of the stream.
            trainer: which ran it.
            method: name of the method.
        """
        if METHODS[method] is METHODS["source"]:
            return
        task, device = module.method.task, trainer.strategy.root_device
        module.to(device)
        self.kept = {name: task.kept(self.checkpoint.class_names) for name in UNUPDATED}
        choices = [row.get("choice") for row in self.tracer.rows]
        with trainer.precision_plugin.forward_context() or nullcontext():
            for choice, batch in zip(choices, loader, strict=False):
                new = counted(batch)
                rows = batch["index"].tolist()
                truth = truth_of(batch, task.target, len(batch["id"]))
                known = None if truth is None else taken(truth, new)
                said = ask(module, batch["image"].to(device), choice)
                for name, output in zip(UNUPDATED, said, strict=True):
                    self.take(name, output[new], known, [rows[at] for at in new])

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
        """Write the page; arguments as of ``RunReporter.write``."""
        sums = self.sums.rows if self.sums else ()
        view: Any = _HoldsFacts(GuardFacts(self.tracer.rows, self.tracer.events, self.levels, sums))
        numbers = {self.noun: self.writer.served, "batch": len(self.tracer.rows)}
        numbers |= {"alarm": metrics["alarms"], "reset": metrics["resets"]}
        lead = ", ".join(page.counted(number, thing) for thing, number in numbers.items()) + "."
        told = about(settings)
        sections = [
            ("What happened", guarded.what_happened(view)),
            ("Guard", guarded.guard(view)),
            *self.sections(metrics),
            ("Settings", self._settings(told, as_text(settings))),
        ]
        head = self.head(metrics, told["method"])
        path.write_text(page.page(name, lead, sections, head=head), encoding="utf-8")

    def _settings(self, told: Mapping[str, str], text: str) -> list[str]:
        """What it takes to have every number again."""
        key, words = self.leads
        rows = [
            *told.items(),
            ("source, SHA-256 of its weights", self.checkpoint.hash),
            (f"source, {words} on its own test images", headline(self.checkpoint.metrics, key)),
        ]
        return [page.table(["", ""], rows, texts=2), page.details("Configuration, resolved", text)]
