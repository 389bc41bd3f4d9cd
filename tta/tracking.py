"""Logging to Weights & Biases through Lightning's logger; offline unless asked otherwise."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from tta.options import option


@dataclass
class WandbConfig:
    """Where a run is logged. Credentials come from the environment alone."""

    mode: Literal["online", "offline", "disabled"] = option("offline", "online, offline (sync later) or disabled")
    project: str = option("holdfast", "project on W&B")
    entity: str | None = option(None, "team or user on W&B")
    group: str | None = option(None, "group of runs")
    tags: list[str] = option([], "tags, e.g. [pilot,ward3]")


def create_loggers(config: WandbConfig, folder: Path, *, name: str, job_type: str, settings: Mapping[str, Any]) -> list[Logger]:
    """Start a W&B run, unless it is disabled.

    Args:
        config: where it goes.
        folder: the run's output folder; offline files lie below it.
        name: of the run.
        job_type: train or adapt.
        settings: the resolved configuration.
    """
    if config.mode == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
        return []
    # The run is started here and handed over: a WandbLogger that starts it leaves WANDB_MODE behind in the environment.
    run = wandb.init(
        name=name,
        dir=folder,
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=config.tags,
        job_type=job_type,
        mode=config.mode,
        config=dict(settings),
        settings=wandb.Settings(silent=True, console="off"),
        reinit="finish_previous",
    )
    run.define_metric("adapt/batch")
    run.define_metric("adapt/*", step_metric="adapt/batch")
    return [WandbLogger(experiment=run)]


def log_trace(loggers: Iterable[Logger], batch: int, values: Mapping[str, float | None]) -> None:
    """Log a batch's statistics against its position in the stream."""
    known = {f"adapt/{key}": value for key, value in values.items() if value is not None}
    for logger in loggers:
        logger.log_metrics({"adapt/batch": batch, **known})


def log_result(
    loggers: Iterable[Logger],
    metrics: Mapping[str, Any],
    *,
    events: Sequence[Mapping[str, Any]] | None = None,
    picture: Path | None = None,
) -> None:
    """Log what a run came to: its metrics as summary, its events as a table, its picture."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        run = logger.experiment
        run.summary.update(_flat(metrics))
        if events is not None:
            columns = ["batch", "event", "reason", "message"]
            rows = [[event.get(column) for column in columns] for event in events]
            run.log({"events": wandb.Table(columns=columns, data=rows)})
        if picture is not None:
            run.log({"trajectory": wandb.Image(str(picture))})


def alert(loggers: Iterable[Logger], title: str, text: str) -> None:
    """Send a W&B alert from each active run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.alert(title=title, text=text, level="ERROR")


def finish(loggers: Iterable[Logger]) -> None:
    """Close the runs, so that the next one in this process starts its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}/") if isinstance(value, Mapping) else {name: value})
    return flat
