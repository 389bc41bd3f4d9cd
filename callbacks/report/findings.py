"""The page about a run that predicted findings, held against source and control."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt
import torch
from lightning import Callback, Trainer

from holdfast.callbacks.base import Guard
from holdfast.callbacks.findings import FindingWriter
from holdfast.callbacks.guard import CollapseGuard
from holdfast.callbacks.leaving import course
from holdfast.callbacks.records import TraceWriter
from holdfast.callbacks.report import guarded, page
from holdfast.callbacks.report.facts import ROWS
from holdfast.callbacks.report.observe import SumsObserver
from holdfast.callbacks.report.told import about, as_text
from holdfast.callbacks.report.unupdated import ask
from holdfast.callbacks.trajectory import trajectory
from holdfast.datamodules import StreamLoader
from holdfast.datamodules.streams.window import counted, taken
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.batches import truth_of
from holdfast.tta.checkpoint import SourceCheckpoint
from holdfast.tta.distributed import batch_of_all
from holdfast.tta.methods import METHODS
from holdfast.tta.results import headline
from holdfast.tta.tasks import Kept

_OTHERS = ("source", "control")
#: Figures of a finding, as a table has them.
_FIGURES = ("auroc", "average_precision", "f1", "sensitivity", "specificity", "ece")


class FindingReporter:
    """Collects what the page tells, and writes it.

    Args:
        checkpoint: the source.
        guard: of the run; None without one.
        writer: keeps probabilities and findings.
        tracer: keeps trace and events.
        kept: file for the guard's sums of a run that may be gone on with; None: memory.
    """

    def __init__(
        self,
        checkpoint: SourceCheckpoint,
        guard: Guard | None,
        writer: FindingWriter,
        tracer: TraceWriter,
        kept: Path | None = None,
    ) -> None:
        self.checkpoint, self.guard, self.writer, self.tracer = checkpoint, guard, writer, tracer
        self.sums = SumsObserver(guard, kept) if isinstance(guard, CollapseGuard) else None
        self.kept: dict[str, Kept] = {}

    def around(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """The run's callbacks, and one behind the guard that sees its sums."""
        return [*callbacks, *([self.sums] if self.sums else [])]

    @torch.no_grad()
    def look_again(
        self, module: AdaptationModule, loader: StreamLoader, trainer: Trainer, method: str
    ) -> None:
        """Ask source and control about the stream, which all processes do together."""
        if METHODS[method] is METHODS["source"]:
            return
        task, device = module.method.task, trainer.strategy.root_device
        module.to(device)
        self.kept = {name: task.kept(self.checkpoint.class_names) for name in _OTHERS}
        choices = [row.get("choice") for row in self.tracer.rows]
        with trainer.precision_plugin.forward_context() or nullcontext():
            for choice, batch in zip(choices, loader, strict=False):
                new = counted(batch)
                truth = truth_of(batch, task.target, len(batch["id"]))
                known = {} if truth is None else {"truth": taken(truth, new)}
                said = ask(module, batch["image"].to(device), choice)
                for name, output in zip(_OTHERS, said, strict=True):
                    own = batch_of_all({"output": output[new].cpu(), **known})
                    self.kept[name].add(own["output"], own.get("truth"))

    def held_against(
        self,
        metrics: Mapping[str, Any],
        groups: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
        asked: int,
    ) -> dict[str, Any]:
        """The metrics, and ``against``: macro AUROC of source and control, and how much better what
        was served is, in points.
        """
        found, ours = dict(metrics), headline(metrics, "auroc")
        if not self.kept or ours is None:
            return found
        found["against"] = {}
        for name, kept in self.kept.items():
            other = kept.scores(self.writer.domains, groups=groups, columns={})
            theirs = headline(other, "auroc")
            assert theirs is not None  # of the same images
            gap = {"auroc": theirs, "difference": round(ours - theirs, 4)}
            found["against"][name] = {**gap, "per_class": other["auroc"]["per_class"]}
        return found

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
        levels = self.guard.levels if isinstance(self.guard, CollapseGuard) else None
        rows, events = self.tracer.rows, self.tracer.events
        sums = self.sums.rows if self.sums else ()
        facts = SimpleNamespace(rows=rows, events=events, levels=levels, sums=sums)
        view: Any = SimpleNamespace(facts=facts)
        numbers = {"image": self.writer.served, "batch": len(rows)}
        numbers |= {"alarm": metrics["alarms"], "reset": metrics["resets"]}
        lead = ", ".join(page.counted(number, thing) for thing, number in numbers.items()) + "."
        shown = {} if levels is None else levels.shown
        caption = "Shares are of images that are called to have a finding, one above the other."
        picture = page.figure(
            lambda: trajectory(rows, events, course(self.writer), shown, ""), caption
        )
        sections = [
            ("What happened", guarded.what_happened(view)),
            ("Guard", guarded.guard(view)),
            ("Over the stream", [picture]),
            ("Findings", _findings(metrics, self.writer)),
            ("Domains and subgroups", _parts(metrics)),
            ("Settings", self._settings(settings)),
        ]
        path.write_text(page.page(name, lead, sections, head=[_tiles(metrics)]), encoding="utf-8")

    def _settings(self, settings: Mapping[str, Any]) -> list[str]:
        """What it takes to have every number again."""
        rows = [
            *about(settings).items(),
            ("source, SHA-256 of its weights", self.checkpoint.hash),
            ("source, AUROC on its own test images", headline(self.checkpoint.metrics, "auroc")),
        ]
        text = as_text(settings)
        return [page.table(["", ""], rows, texts=2), page.details("Configuration, resolved", text)]


def _tiles(metrics: Mapping[str, Any]) -> str:
    """The numbers to read first."""
    ours = headline(metrics, "auroc")
    if ours is None:
        return ""
    shown = {"macro AUROC, served": f"{ours:.1f} %"}
    for name, other in metrics.get("against", {}).items():
        shown[f"{name}"] = f"{other['auroc']:.1f} %"
    return page.tiles(shown)


def _findings(metrics: Mapping[str, Any], writer: FindingWriter) -> list[str]:
    """Figures of each finding."""
    if "present" not in metrics:
        return [
            page.paragraph("No finding of this stream is known, so nothing here says how good.")
        ]
    against = metrics.get("against", {})
    rows = [
        [
            name,
            *(metrics["present"].get(name), metrics["called"].get(name), threshold),
            *(metrics.get(figure, {}).get("per_class", {}).get(name) for figure in _FIGURES),
            *(of["per_class"].get(name) for of in against.values()),
        ]
        for name, threshold in zip(writer.class_names, writer.thresholds, strict=True)
    ][:ROWS]
    head = ["finding", "present, %", "called, %", "threshold"]
    head += [*(name.replace("_", " ") for name in _FIGURES), *(f"AUROC, {n}" for n in against)]
    text = (
        "In percent; thresholds are probabilities, fitted on the source's validation images. What "
        "is not defined, such as figures of a finding that nobody has, is left out."
    )
    return [page.table(head, rows), page.paragraph(text)]


def _parts(metrics: Mapping[str, Any]) -> list[str]:
    """Figures of each domain and subgroup."""
    splits = {"domain": metrics.get("domains", {}), **metrics.get("subgroups", {})}
    rows = [
        [split, value, part.get("images"), part.get("groups")]
        + [headline(part, figure) for figure in _FIGURES]
        for split, parts in splits.items()
        for value, part in parts.items()
    ]
    names = ["split", "value", "images", "groups", *(f"{name}, macro" for name in _FIGURES)]
    return [page.table(names, rows[:ROWS], texts=2)] if rows else []
