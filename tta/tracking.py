"""Where a run is logged: to Weights & Biases, offline unless asked otherwise, and to Lightning's
other loggers.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.utilities import rank_zero_only

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError, said
from holdfast.tta.saying import warn
from holdfast.tta.settings import WandbConfig as WandbConfig
from holdfast.tta.surviving import Surviving

#: Seconds that W&B's server has to answer when a run starts.
_PATIENCE = 8
#: The axis of each family of metrics, by kind of run.
_AXES = {
    "train": {"train/*": "epoch", "val/*": "epoch"},
    "adapt": {"adapt/*": "adapt/batch"},
    "benchmark": {"benchmark/*": "benchmark/cells"},
}


def create_loggers(
    config: WandbConfig,
    folder: Path,
    *,
    name: str,
    job_type: Literal["train", "adapt", "benchmark"],
    settings: Mapping[str, Any],
    others: Any = "csv",
) -> list[Logger]:
    """Start the loggers of a run; of several processes, only the first has any.

    Training always leaves ``csv/metrics.csv``; what adaptation and benchmark measure is in CSV
    files of their own anyway.

    Args:
        config: W&B.
        folder: the run's output folder; what loggers write lies below it.
        name: of the run.
        job_type: kind of run.
        settings: the resolved configuration.
        others: loggers beside W&B, a name or several.

    Raises:
        InputError: a logger is unknown or not installed, or W&B refuses to start.
    """
    create = {word: _LOGGERS[word] for word in logger_names(others)}
    if getattr(rank_zero_only, "rank", 0):
        return []
    if job_type == "train":
        create["csv"] = _csv
    loggers: list[Logger] = []
    for word, start in create.items():
        try:
            loggers.append(start(folder, name, config.project))
            loggers[-1].log_hyperparams(dict(settings))
        except ModuleNotFoundError as error:
            raise InputError(
                f"logger={word} needs a package that is not installed: pip install "
                f'"holdfast[{word}]"'
            ) from error
        except Exception as error:  # a server's own; its words may hold an address with a password
            raise InputError(
                f"logger={word} does not start ({type(error).__name__}): check its environment"
            ) from error
    return [*loggers, *_wandb(config, folder, name, job_type, settings)]


def logger_names(words: Any) -> list[str]:
    """The loggers to start for ``logger=``; csv, which asks for nothing more, left out.

    Raises:
        InputError: there is no such logger.
    """
    several = isinstance(words, Sequence) and not isinstance(words, str)
    names = list(words) if several else [name for name in (words,) if name is not None]
    for name in names:
        if name not in ("csv", *_LOGGERS):
            raise InputError(
                f"unknown logger {name!r}: {closest(str(name), ['csv', *_LOGGERS])}; W&B is asked "
                "for by wandb.mode"
            )
    return [name for name in dict.fromkeys(names) if name != "csv"]


def own_name(name: str) -> str:
    """The name, with its id where W&B's sweep agent started the run: one folder would not do for
    all of them.
    """
    run = os.environ.get("WANDB_RUN_ID")
    return f"{name}-{run}" if run and os.environ.get("WANDB_SWEEP_ID") else name


def wandb_runs(loggers: Iterable[Logger]) -> list[Any]:
    """The W&B runs among the loggers."""
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


def log_trace(loggers: Iterable[Logger], batch: int, values: Mapping[str, float | None]) -> None:
    """Log a batch's statistics against its position in the stream."""
    known = {f"adapt/{key}": value for key, value in values.items() if value is not None}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics({"adapt/batch": batch, **known})
        else:
            logger.log_metrics(known, step=batch)


def log_progress(loggers: Iterable[Logger], cells: int, total: int) -> None:
    """Log how many of the benchmark's cells are done."""
    for logger in loggers:
        logger.log_metrics({"benchmark/cells": cells, "benchmark/done": 100 * cells / total})


def alert(loggers: Iterable[Logger], title: str, text: str) -> None:
    """Send a W&B alert from each active run."""
    for run in wandb_runs(loggers):
        run.alert(title=title, text=text, level="ERROR")


def finish(loggers: Iterable[Logger]) -> None:
    """Close the loggers, as failed where an exception is on its way, so that the next run in this
    process starts its own.
    """
    failed = sys.exc_info()[0] is not None
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _finish(logger.experiment, int(failed))
        else:
            logger.finalize("failed" if failed else "success")


def _finish(run: Any, status: int) -> None:
    run.finish(exit_code=status)
    if run.lost:  # the next run of this process needs a service of its own
        import wandb

        with suppress(OSError):
            wandb.teardown()


def _wandb(
    config: WandbConfig, folder: Path, name: str, job_type: str, settings: Mapping[str, Any]
) -> list[Logger]:
    mode: Any = os.environ.get("WANDB_MODE") or config.mode
    if "disabled" in (mode, config.mode):
        return []
    if mode != "online" and config.resume != "never":
        raise InputError(
            f"wandb.resume={config.resume} needs wandb.mode=online: an offline run cannot be gone "
            "on with, but "
            "wandb.group=NAME keeps its runs together"
        )
    import wandb  # here: it takes a second, and a run without it needs none

    asked: dict[str, Any] = {
        "name": config.name or name,
        "dir": folder,
        "project": config.project,
        "entity": config.entity,
        "group": config.group,
        "tags": config.tags,
        "notes": config.notes,
        "id": config.id,
        "resume": config.resume if config.resume != "never" else None,
        "job_type": job_type,
        "config": dict(settings),
    }
    try:
        run = _started(asked, mode, config)
    except (wandb.errors.Error, ValueError) as error:
        raise InputError(
            f"W&B does not start ({said(error)}): export WANDB_API_KEY, or log offline and sync "
            "later, wandb.mode=offline"
        ) from error
    for metrics, axis in _AXES[job_type].items():
        run.define_metric(axis)
        run.define_metric(metrics, step_metric=axis)
    surviving = Surviving(run, folder=Path(run.dir))
    surviving.heed(logging.getLogger("wandb"))
    return [WandbLogger(experiment=cast(Any, surviving))]


def _started(asked: Mapping[str, Any], mode: Any, config: WandbConfig) -> Any:
    """A W&B run; an offline one where the server does not answer, unless that is to be refused."""
    import wandb

    try:
        return _init(asked, mode)
    except wandb.errors.AuthenticationError:
        raise  # the server answered
    except wandb.errors.CommError:
        if mode != "online" or config.fallback != "offline" or config.resume != "never":
            raise
        warn(
            f"W&B's server did not answer in {_PATIENCE} s, so this run is logged offline: send it "
            "later by wandb sync, or have such a run refused, wandb.fallback=refuse"
        )
        return _init(asked, "offline")


def _init(asked: Mapping[str, Any], mode: Any) -> Any:
    import wandb

    # The run is started here and handed over: a WandbLogger that starts it leaves WANDB_MODE
    # behind in the environment.
    settings = wandb.Settings(silent=True, console="off", init_timeout=_PATIENCE)
    return wandb.init(mode=mode, settings=settings, reinit="finish_previous", **asked)


def _csv(folder: Path, name: str, project: str) -> Logger:
    return CSVLogger(folder, name="", version="csv")


def _tensorboard(folder: Path, name: str, project: str) -> Logger:
    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)


def _mlflow(folder: Path, name: str, project: str) -> Logger:
    # Where to and with which credentials is MLflow's own business, and stands in its variables of
    # the environment.
    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
    return MLFlowLogger(experiment_name=project, run_name=name, tracking_uri=uri)


_LOGGERS: dict[str, Callable[[Path, str, str], Logger]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}
