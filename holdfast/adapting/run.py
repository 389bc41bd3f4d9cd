"""One pass over the stream, with all that it leaves."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.config import AdaptConfig
from holdfast.adapting.exported import check_export, write_export
from holdfast.adapting.outputs import (
    PROGRAM,
    Served,
    draw,
    forget,
    log_inputs,
    log_outputs,
    rewrite,
    save,
    write_look,
)
from holdfast.adapting.stopped import facts_of, run_name, stopped_at, stopped_run
from holdfast.adapting.writers import create_writer
from holdfast.callbacks import Alerts, CollapseGuard, TraceWriter
from holdfast.callbacks.base import Guard
from holdfast.callbacks.chained import seal_of
from holdfast.callbacks.counting import Counting
from holdfast.callbacks.leaving import scored
from holdfast.callbacks.records import PICTURED
from holdfast.callbacks.report.contact import write_sheet
from holdfast.callbacks.report.reporter import Reporter, create_reporter, resamples
from holdfast.callbacks.stream_checkpoint import StreamCheckpoint
from holdfast.datamodules import StreamLoader
from holdfast.datamodules.streams.waiting import WaitingLoader
from holdfast.datamodules.streams.window import NewestOnly
from holdfast.datamodules.summary import tell, understood
from holdfast.tta import entry
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.config import to_dict
from holdfast.tta.distributed import from_first
from holdfast.tta.folder import carry_out, check_folder, claimed, held, sheet_folder, writing
from holdfast.tta.parquet import to_parquet
from holdfast.tta.processes import Others, is_first, together
from holdfast.tta.saying import heed, say, warn
from holdfast.tta.streamfile import NAME
from holdfast.tta.tracking import create_loggers, finish
from holdfast.tta.trainers import check_device


def adapt(assembly: Assembly) -> tuple[Path, dict[str, Any]]:
    """Serve the stream, and write what comes of it.

    Args:
        assembly: the parts of the run.

    Returns:
        The folder of the results, and the content of its ``metrics.json``.

    Raises:
        InputError: something that was given cannot be used; nothing is written then.
        WriteError: results cannot be written; it says which are whole.
    """
    config = assembly.config
    check_folder(PROGRAM, config)
    check_export(config)
    parts = checked(assembly)
    name = config.name or assembly.name
    watch: list[Callback] = [] if parts.guard is None else [parts.guard]
    if isinstance(parts.guard, CollapseGuard):
        watch.append(Alerts(parts.guard.config.alert, name))  # refuses before anything is written
    with claimed(PROGRAM, config, name) as folder:
        return folder, _Run(assembly, parts, folder, watch).carry_out()


def resume(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Go on with a run that was stopped, exactly as if it had not been.

    Args:
        folder: of the run.

    Raises:
        InputError: there is no run that can be gone on with, or what it needs has changed.
        WriteError: results cannot be written; it says which are whole.
    """
    path = Path(folder).expanduser()
    assembly = stopped_run(path)
    heed(assembly.config.trainer)
    with held(path) if is_first() else nullcontext():
        states = stopped_at(path, assembly)
        parts = checked(assembly)
        watch: list[Callback] = [] if parts.guard is None else [parts.guard]
        if isinstance(parts.guard, CollapseGuard):
            watch.append(Alerts(parts.guard.config.alert, run_name(path, assembly)))
        return path, _Run(assembly, parts, path, watch, states).carry_out()


def check(assembly: Assembly) -> Path:
    """Load and check everything as the run would, and say and show what was understood.

    Returns:
        The page with the contact sheet.
    """
    checked(assembly)
    sets = {"target": assembly.images}
    folder = sheet_folder(assembly.config, assembly.name)
    return write_sheet(folder, folder.name, understood(sets), sets)


@dataclass(frozen=True)
class Parts:
    """What a Trainer needs, all of it made and checked before anything is written."""

    module: AdaptationModule
    guard: Any
    arguments: dict[str, Any]


def checked(assembly: Assembly) -> Parts:
    """Make and check everything, and say what was understood of the images."""
    config = assembly.config
    assembly.seed()
    check_device(config.trainer)
    arguments = entry.trainer_arguments(
        config.trainer, max_epochs=1, enable_checkpointing=False, log_every_n_steps=1
    )
    if assembly.waits:
        say(f"waiting for images in {config.data.options.root}")
    else:
        tell({"target": assembly.images})
    _ = assembly.columns, assembly.stream  # refused early, where they are none
    module, guard = assembly.guarded()
    if is_first():
        for note in assembly.notes:
            say(note)
        _beware(config, module, len(assembly.stream))
        _beware_of_strangers(assembly, guard)
    return Parts(module, guard, arguments)


def _beware(config: AdaptConfig, module: AdaptationModule, images: int) -> None:
    """Warn of batches that teach or tell little."""
    if module.screens_mix and images < module.batch_size:
        warn(
            f"the stream has {images} images, fewer than a batch of {module.batch_size}, so "
            "nothing will be learned: take smaller batches, stream.batch_size=N"
        )
    normalization = getattr(config.method.options, "normalization", None)
    if module.batch_size == 1 and config.guard.kind != "on" and normalization == "batch":
        warn(
            "one image a batch: its own statistics tell little, so predictions suffer; take more, "
            "stream.batch_size=64"
        )


def _beware_of_strangers(assembly: Assembly, guard: Guard | None) -> None:
    """Warn of labels that are all of other images than the target's, and so count for nothing."""
    labelled = guard.labelled if isinstance(guard, CollapseGuard) else None
    if labelled is None or assembly.waits:
        return
    ids = assembly.images.ids
    if strangers := labelled.book.strange(ids.tolist()):
        warn(
            f"none of the {strangers} ids in labels={assembly.config.labels} is one of the "
            f"target's images, which are called as {ids[0]}: write their ids as predictions.csv "
            "has them"
        )


class _Run:
    """A run that has its folder.

    Args:
        assembly: its parts.
        parts: made of it.
        folder: of the results.
        watch: the guard, and who is told of its alarms.
        states: of each process, where the run was stopped; None: it begins.
    """

    def __init__(
        self,
        assembly: Assembly,
        parts: Parts,
        folder: Path,
        watch: Sequence[Callback],
        states: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.assembly, self.parts, self.watch, self.states = assembly, parts, watch, states
        self.name = run_name(folder, assembly)
        config, self.facts = assembly.config, facts_of(assembly)
        seal = seal_of(self.facts)
        writer = create_writer(assembly, folder, seal)
        tracer = TraceWriter(folder, None if config.report else PICTURED, seal)
        self.served = Served(assembly, folder, parts.guard, writer, tracer)
        self.settings = to_dict(config)
        self.reporter: Reporter | None = None
        if config.report:
            self.reporter = create_reporter(
                *(assembly.checkpoint, parts.guard, writer, tracer, folder)
            )
        self.keeper = StreamCheckpoint(
            folder / NAME, self.facts, assembly.loader, config.checkpoint.every
        )

    def carry_out(self) -> dict[str, Any]:
        """Serve and write; returns the metrics."""
        served, config = self.served, self.assembly.config
        if is_first():
            self._tell_ahead()
        group = config.wandb.group or self.name  # where a run that goes on stands beside the first
        loggers = create_loggers(
            replace(config.wandb, group=group),
            served.folder,
            name=self.name,
            job_type="adapt",
            settings=self.settings,
            others=config.logger,
        )
        try:
            log_inputs(loggers, self.assembly)
            trainer = self._serve(loggers)
            metrics = from_first(self._metrics() if is_first() else {})
            whole = []
            if is_first():
                whole = save(served, metrics, self.parts.module.method, self.facts)
            self._look_again(trainer)
            others = Others(trainer)
            if is_first():
                metrics = self._held_against(metrics)
                carry_out(self._late(metrics, loggers), kept=whole)
                forget(served.folder)
                others.ended()
                write_export(self.assembly, served.folder, self.facts)
        finally:
            finish(loggers)
        return metrics

    def _tell_ahead(self) -> None:
        """Write what is known before the run starts."""
        folder, assembly = self.served.folder, self.assembly
        table, loader = folder / "stream.csv", assembly.loader
        if isinstance(loader, WaitingLoader):
            loader.path = table
        else:
            with writing(table):
                assembly.stream.save(table, assembly.images)
        if assembly.config.preflight.kind == "report":
            look = assembly.preflight()
            write_look(folder, look)
            say(str(look))

    def _serve(self, loggers: list[Logger]) -> Trainer:
        """Carry the module through the stream."""
        served = self.served
        callbacks = [*self.watch, NewestOnly(), served.writer, served.tracer]
        if self.reporter is not None:
            callbacks = self.reporter.around(callbacks)
        callbacks.append(self.keeper)
        if self.assembly.waits and self.parts.arguments.get("enable_progress_bar", True):
            callbacks.append(Counting())
        trainer = entry.create_trainer(
            {"logger": loggers, "callbacks": callbacks, **self.parts.arguments}
        )
        if self.states is not None:
            self.keeper.resume(self.states, trainer, self.parts.module)
        whole = None if self.assembly.waits else len(self.assembly.stream)
        with entry.incomplete(lambda: served.writer.served, whole, served.folder):
            entry.fit(trainer, self.parts.module, self.assembly.loader)
        return trainer

    def _metrics(self) -> dict[str, Any]:
        """Scores of what was served, what the guard did, and what taught nothing."""
        served, config, guard = self.served, self.assembly.config, self.parts.guard
        writer, tracer = served.writer, served.tracer
        metrics: dict[str, Any] = scored(
            writer,
            groups=served.groups,
            columns=served.columns,
            aggregate=config.data.options.aggregate == "group",
            bootstrap=resamples(config.bootstrap) if config.report else config.bootstrap,
        )
        network = self.assembly.checkpoint.network
        metrics["network"] = {"kind": network["kind"], **network["options"]}
        metrics["alarms"] = guard.alarms if guard else 0
        metrics["resets"] = len(guard.resets) if guard else 0
        metrics["batches"] = len(tracer.rows)
        metrics["skipped_batches"] = tracer.skipped
        metrics["broken_images"] = writer.broken
        metrics["unreadable_images"] = writer.unreadable
        return metrics

    @property
    def timing(self) -> dict[str, float]:
        """How long it took, which is the only thing that differs when a run is repeated."""
        writer = self.served.writer
        rate = writer.served / max(writer.seconds, 1e-9)
        return {"seconds": round(writer.seconds, 3), "images_per_second": round(rate, 1)}

    def _look_again(self, trainer: Trainer) -> None:
        """For the page, what source and control say of the stream."""
        if self.reporter is None:
            return
        twin, _ = self.assembly.guarded()
        assert isinstance(self.assembly.loader, StreamLoader), "no report of a stream that waits"
        method = self.assembly.config.method.kind
        with together():
            self.reporter.look_again(twin, self.assembly.loader, trainer, method)

    def _held_against(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The metrics, and where there is a page those of source and control."""
        if self.reporter is None:
            return metrics
        served, asked = self.served, self.assembly.config.bootstrap
        return self.reporter.held_against(metrics, served.groups, served.columns, asked)

    def _late(
        self, metrics: dict[str, Any], loggers: list[Logger]
    ) -> list[tuple[Path, Callable[[], object]]]:
        """The files that follow when the results are safe, and what writes each."""
        served = self.served
        picture, page, told = (
            served.folder / file for file in ("trajectory.png", "report.html", "loggers")
        )
        timing = served.folder / "timing.json"
        steps: list[tuple[Path, Callable[[], object]]] = [
            (timing, partial(entry.write_json, timing, self.timing)),
            (picture, partial(draw, picture, self.name, served)),
        ]
        if self.assembly.config.predictions.parquet:
            table = served.writer.path.with_suffix(".parquet")
            steps.append((table, partial(to_parquet, served.writer.path, table)))
        if self.reporter is not None:
            scored, part = (served.folder / name for name in ("metrics.json", "metrics.json.part"))
            steps.insert(0, (part, partial(rewrite, part, scored, metrics)))
            facts: dict[str, Any] = {
                "name": self.name,
                "metrics": {**metrics, **self.timing},
                "groups": served.groups,
                "columns": served.columns,
                "settings": self.settings,
            }
            steps.append((page, partial(self.reporter.write, page, **facts)))
        steps.append((told, partial(log_outputs, loggers, served, {**metrics, **self.timing})))
        return steps
