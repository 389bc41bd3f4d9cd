"""What a run leaves in its folder and with its loggers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
from lightning.pytorch.loggers import Logger
from torch import Tensor

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks import CollapseGuard, PredictionWriter, TraceWriter
from holdfast.callbacks.audit import AUDIT
from holdfast.callbacks.base import Guard
from holdfast.callbacks.columns import has_groups, known_of
from holdfast.callbacks.leaving import Writer, course, pictured, sampled
from holdfast.callbacks.patients import write_patients
from holdfast.callbacks.predictions import KEPT as SERVED
from holdfast.callbacks.preflight import Preflight
from holdfast.callbacks.report.reporter import KEPT as REPORTED
from holdfast.callbacks.trajectory import save_trajectory, trajectory
from holdfast.tta import entry
from holdfast.tta.artifacts import (
    adapted_name,
    log_artifact,
    source_metadata,
    source_name,
    use_model,
)
from holdfast.tta.checkpoint import save_adapted, source_file
from holdfast.tta.csvfile import RowFile
from holdfast.tta.fingerprint import fingerprint, values_now
from holdfast.tta.folder import Program, carry_out, writing
from holdfast.tta.methods import Method
from holdfast.tta.normalization import statistics_in_use
from holdfast.tta.results import log_images, log_result, metric_tables
from holdfast.tta.streamfile import NAME
from holdfast.tta.tracking import wandb_runs

#: Files that a run needs to be gone on with, beside its checkpoints, until it is done.
KEPT = (SERVED, *REPORTED)
PROGRAM = Program(
    "holdfast adapt",
    "runs/adapt",
    results=(
        "predictions.csv",
        "predictions.parquet",
        "cases.csv",
        "cases.parquet",
        "masks/*",
        "patients.csv",
        "trace.csv",
        "events.jsonl",
        "metrics.json",
        "adapted.ckpt",
        "trajectory.png",
        "report.html",
        NAME,
    ),
    others=(
        "config.yaml",
        "stream.csv",
        "preflight.json",
        "*.ckpt.*.part",
        "metrics.json.part",
        "timing.json",
        AUDIT,
        "config.yaml.part",
        f"{NAME}.before",
        *KEPT,
        "tensorboard/events.out.tfevents.*",
    ),
    unfinished=NAME,
    within=("accept",),
)
#: Rows of the table of predictions that W&B gets.
_SAMPLE = 100


@dataclass(frozen=True)
class Served:
    """What a stream left in memory.

    Attributes:
        assembly: the parts of the run.
        folder: of the results.
        guard: None where there was none.
        writer: with the predictions.
        tracer: with trace and events.
    """

    assembly: Assembly
    folder: Path
    guard: Guard | None
    writer: Writer
    tracer: TraceWriter

    @property
    def streamed(self) -> list[str]:
        """Names of the files that are whole when the stream has ended."""
        return [self.writer.path.name, "trace.csv", "events.jsonl"]

    @property
    def groups(self) -> npt.NDArray[Any]:
        """(N,) patient or slide of each image that was served."""
        return self.assembly.images.groups[self.writer.rows]

    @property
    def columns(self) -> dict[str, Any]:
        """(N,) subgroup of each image that was served, by the column's name."""
        rows = self.writer.rows
        return {name: values[rows] for name, values in self.assembly.columns.items()}


def write_look(folder: Path, look: Preflight) -> None:
    """Write what the first images said."""
    with writing(folder / "preflight.json"):
        entry.write_json(folder / "preflight.json", look.to_dict())


def save(
    served: Served, metrics: Mapping[str, Any], method: Method, facts: Mapping[str, Any]
) -> list[str]:
    """Write what matters most, before anything that takes time or room.

    Args:
        served: the run.
        metrics: content of ``metrics.json``.
        method: as it ended.
        facts: hashes of source and stream.

    Returns:
        Names of all files that are whole.
    """
    scored, adapted = served.folder / "metrics.json", served.folder / "adapted.ckpt"
    state, kind = method.adapted_state(), served.assembly.config.method.kind
    statistics = statistics_in_use(method.model)
    steps: list[tuple[Path, Callable[[], object]]] = [
        (scored, partial(entry.write_json, scored, metrics)),
        (
            adapted,
            partial(save_adapted, adapted, served.assembly.checkpoint, kind, state, statistics),
        ),
    ]
    audit = served.folder / AUDIT
    steps.append((audit, partial(entry.write_json, audit, _sealed(served, facts, state))))
    if _has_patients(served):
        patients = served.folder / "patients.csv"
        steps.append((patients, partial(_write_patients, patients, served)))
    carry_out(steps, kept=served.streamed)
    return [*served.streamed, *(path.name for path, _ in steps)]


def _sealed(
    served: Served, facts: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What ``holdfast audit`` holds the run's files against."""
    files = [file for writer in (served.writer, served.tracer) for file in writer.files]
    ends = {
        file.path.name: {"lines": file.rows - (file.path.suffix == ".csv"), "link": file.link}
        for file in files
        if isinstance(file, RowFile)
    }
    return {**facts, "files": ends, "weights": fingerprint(values_now(state.values()))}


def forget(folder: Path) -> None:
    """Remove what it took to go on with a run, which is done."""
    for name in (f"{NAME}.before", NAME, *KEPT):  # without a checkpoint there is none before it
        (folder / name).unlink(missing_ok=True)


def rewrite(part: Path, scored: Path, metrics: Mapping[str, Any]) -> None:
    """Put metrics that say more in the place of a file that stays whole until then.

    Args:
        part: file that they are written to first.
        scored: ``metrics.json``.
        metrics: its content.
    """
    entry.write_json(part, metrics)
    part.replace(scored)


def _has_patients(served: Served) -> bool:
    """Whether images are of patients whose mean prediction says something."""
    rows = isinstance(served.writer, PredictionWriter)
    return rows and has_groups(served.assembly.images)


def _write_patients(path: Path, served: Served) -> None:
    assert isinstance(served.writer, PredictionWriter)
    writer, rows = served.writer, served.writer.rows
    known = known_of(served.assembly.images, served.assembly.columns)
    known.pop("group")
    write_patients(
        path,
        *(writer.probabilities, served.groups, writer.domains),
        {name: values[rows] for name, values in known.items()},
        writer.class_names,
        served.assembly.config.predictions.columns,
        writer.task.decide,
    )


def draw(path: Path, name: str, served: Served) -> None:
    """The picture of what was served and what the guard saw, batch by batch."""
    guard, writer, tracer = served.guard, served.writer, served.tracer
    levels = guard.levels.shown if isinstance(guard, CollapseGuard) else {}
    figure = trajectory(tracer.rows, tracer.events, course(writer), levels, name)
    save_trajectory(figure, path)


def log_inputs(loggers: list[Logger], assembly: Assembly) -> None:
    """Tell W&B from which checkpoints the run starts."""
    config, checkpoint = assembly.config, assembly.checkpoint
    if not config.wandb.artifacts:
        return
    assert config.source is not None
    name, facts = source_name(checkpoint), source_metadata(checkpoint)
    use_model(loggers, "source", name, source_file(config.source), facts)
    if config.start is not None:
        use_model(loggers, "start", adapted_name(checkpoint), Path(config.start).expanduser())


def log_outputs(loggers: list[Logger], served: Served, metrics: dict[str, Any]) -> None:
    """Give the loggers what the run came to."""
    if not wandb_runs(loggers):  # the others get figures; a long table is not read for nothing
        log_result(loggers, metrics)
        return
    config, writer = served.assembly.config, served.writer
    columns = ("batch", "event", "reason", "message")
    tables = {
        "events": [{name: event.get(name) for name in columns} for event in served.tracer.events],
        "predictions": sampled(writer, _SAMPLE),
        **metric_tables(metrics),
    }
    picture = served.folder / "trajectory.png"
    pictures = {"trajectory": picture} if picture.is_file() else {}
    log_result(loggers, metrics, tables=tables, pictures=pictures)
    log_images(loggers, pictured(writer, served.assembly.images, config.wandb.images))
    if config.wandb.artifacts:
        _log_files(loggers, served)


def _log_files(loggers: list[Logger], served: Served) -> None:
    """The results and the adapted model, as W&B artifacts."""
    config, folder = served.assembly.config, served.folder
    names = [*served.streamed, "metrics.json", "config.yaml"]
    names += ["patients.csv"] if _has_patients(served) else []
    facts = {
        "method": config.method.kind,
        "guard": config.guard.kind,
        "stream": config.stream.kind,
    }
    files = [folder / name for name in names]
    log_artifact(loggers, f"predictions-{folder.name}", "predictions", files, facts)
    adapted = adapted_name(served.assembly.checkpoint)
    log_artifact(loggers, adapted, "model", [folder / "adapted.ckpt"], facts)
