"""One training, with all that it leaves."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning import seed_everything
from lightning.pytorch.loggers import Logger

from holdfast.callbacks.report.contact import write_sheet
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.summary import tell, understood
from holdfast.training.config import TrainConfig, configure
from holdfast.training.describe import described, with_calibration, with_missing
from holdfast.training.fit import CHECKPOINTS, LAST, fitted, forget
from holdfast.training.prepare import check_fit, prepared, source_data
from holdfast.tta import entry
from holdfast.tta.artifacts import log_artifact, source_metadata, source_name
from holdfast.tta.checkpoint import SourceCheckpoint, source_file
from holdfast.tta.config import to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.folder import (
    Program,
    carry_out,
    check_folder,
    claimed,
    held,
    sheet_folder,
    sweep,
    writing,
)
from holdfast.tta.networks import Network
from holdfast.tta.processes import is_first
from holdfast.tta.results import log_result, metric_tables
from holdfast.tta.saying import heed, warn
from holdfast.tta.tasks import Task
from holdfast.tta.tracking import create_loggers, finish, own_name
from holdfast.tta.trainers import check_device

#: What a run that is stopped while it calibrates leaves; ``calibrate=only`` goes on from it.
_TRAINED = "trained.ckpt"
_UNFINISHED = f"{CHECKPOINTS}/{LAST}"
PROGRAM = Program(
    "holdfast train",
    "runs/train",
    results=("source.ckpt", _TRAINED, "metrics.json", _UNFINISHED),
    others=(
        *("config.yaml", "config.yaml.part", "csv/*", f"{CHECKPOINTS}/best.ckpt", "*.ckpt.*.part"),
        "tensorboard/events.out.tfevents.*",
    ),
    unfinished=_UNFINISHED,
)
#: ``calibrate=only`` leaves a checkpoint beside whatever else is there.
RECALIBRATION = Program("holdfast train", "runs/train", results=("source.ckpt",), others=())


def train(config: TrainConfig) -> Path:
    """Train, or adopt weights; evaluate, calibrate and write the checkpoint.

    Returns:
        The folder with ``source.ckpt``, ``metrics.json`` and ``config.yaml``.
    """
    check_folder(PROGRAM, config)
    parts = _parts(config)
    with claimed(PROGRAM, config, _run_name(config)) as folder:
        _carry_out(config, parts, folder)
    return folder


def resume(folder: str | Path) -> Path:
    """Go on with a training that was stopped, behind the last epoch that it finished.

    Args:
        folder: of the run; its ``config.yaml`` says the rest.

    Returns:
        The folder.

    Raises:
        InputError: there is no training there that can be gone on with.
    """
    path = Path(folder).expanduser()
    if not (path / "config.yaml").is_file():
        raise InputError(
            f"{path} holds no training, for config.yaml is not there: name the folder of a run of "
            f"{PROGRAM.name}, resume=DIR"
        )
    if (path / "source.ckpt").exists() and not (path / _TRAINED).exists():
        raise InputError(f"the training in {path} is complete, and there is nothing to resume")
    config = configure([str(path / "config.yaml")])
    heed(config.trainer)
    with held(path) if is_first() else nullcontext():
        if is_first():
            sweep(path, PROGRAM)
        _carry_out(config, _parts(config), path, stopped=True)
    return path


class _Parts(NamedTuple):
    """What a training needs, made and checked before anything is written."""

    data: SourceData
    task: Task
    network: Network
    description: dict[str, Any]
    arguments: dict[str, Any]


def _parts(config: TrainConfig) -> _Parts:
    seed_everything(config.seed, workers=True, verbose=False)
    parts = prepared(config)
    check_device(config.trainer)
    return _Parts(*parts, entry.trainer_arguments(config.trainer, max_epochs=config.epochs))


def _carry_out(config: TrainConfig, parts: _Parts, folder: Path, *, stopped: bool = False) -> None:
    """Train in a folder, or go on with the training that was stopped there."""
    below = folder.resolve().parent == Path(PROGRAM.root).resolve()
    loggers = create_loggers(
        config.wandb,
        folder,
        name=folder.name if below else config.name or _run_name(config),
        job_type="train",
        settings=to_dict(config),
        others=config.logger,
    )
    trained, others = folder / _TRAINED, None
    try:
        if stopped and trained.is_file():  # what is left is calibration, for one process
            if is_first():
                _conclude(config, SourceCheckpoint.load(trained), parts.data, folder, loggers)
            return
        data, task, network, description, arguments = parts
        if config.weights is None:
            arguments = {"logger": loggers, **arguments}
            others = fitted(config, network, task, data, folder, arguments, stopped=stopped)
        if is_first():  # the rest is for one process
            checkpoint = described(config, network, description, task, data)
            _conclude(config, checkpoint, data, folder, loggers)
        if is_first() and others is not None:
            others.ended()
    finally:
        finish(loggers)


def _conclude(
    config: TrainConfig,
    checkpoint: SourceCheckpoint,
    data: SourceData,
    folder: Path,
    loggers: list[Logger],
) -> None:
    """Calibrate, write the checkpoint, and tell the loggers."""
    trained = folder / _TRAINED  # calibration takes its time; a source.ckpt that is there is whole
    with writing(trained):
        checkpoint.save(trained)
    try:
        checkpoint = with_calibration(config, checkpoint, data)
    except InputError as error:  # no reason to lose the training
        warn(f"calibration was left out, so the guard keeps its default thresholds: {error}")

    def log() -> None:
        log_result(loggers, checkpoint.metrics, tables=metric_tables(checkpoint.metrics))
        if config.wandb.artifacts:
            files, facts = [folder / "source.ckpt"], source_metadata(checkpoint)
            log_artifact(loggers, source_name(checkpoint), "model", files, facts)

    steps = [
        (folder / "source.ckpt", lambda: checkpoint.save(folder / "source.ckpt")),
        (
            folder / "metrics.json",
            lambda: entry.write_json(folder / "metrics.json", checkpoint.metrics),
        ),
        (folder / "loggers", log),
    ]
    carry_out(steps, kept=[_TRAINED])
    forget(folder)
    trained.unlink()


def check(config: TrainConfig) -> Path:
    """Load and check everything as training would, and say and show what was understood.

    Returns:
        The page with the contact sheet.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    if config.calibrate.kind == "only":
        assert config.source is not None
        data = source_data(config)
        tell(data.images)
        check_fit(data, SourceCheckpoint.load(config.source))
    else:
        data = prepared(config).data
    check_device(config.trainer)
    entry.trainer_arguments(config.trainer)
    folder = sheet_folder(config, _run_name(config))
    return write_sheet(folder, folder.name, understood(data.images), data.images)


def _run_name(config: TrainConfig) -> str:
    """The run's name, where it has none."""
    made = "adopted" if config.weights is not None else f"seed{config.seed}"
    name = Path(getattr(config.model.options, "name", "")).name  # of a library's network, or file
    model = f"{config.model.kind}-{name.replace(':', '-')}" if name else config.model.kind
    return own_name(f"{config.data.kind}-{model}-{made}")


def recalibrate(config: TrainConfig) -> Path:
    """Calibrate an existing checkpoint anew, and add what older ones lack.

    Returns:
        The checkpoint's file: that of ``config.source``, replaced, or a new one in
        ``config.output``.
    """
    if config.output is not None:
        check_folder(RECALIBRATION, config)
    seed_everything(config.seed, workers=True, verbose=False)
    assert config.source is not None
    checkpoint = SourceCheckpoint.load(config.source)
    data = source_data(config)
    tell(data.images)
    check_fit(data, checkpoint)
    checkpoint = with_missing(config, checkpoint, data)
    checkpoint = with_calibration(config, checkpoint, data)
    if config.output is None:
        file = source_file(config.source)
        with writing(file.with_suffix(".part")):
            checkpoint.save(file)
        return file
    # A file that may be replaced is so by the new one that is whole, and not before.
    program = replace(RECALIBRATION, results=()) if config.overwrite else RECALIBRATION
    with claimed(program, config, "") as folder:
        file = folder / "source.ckpt"
        with writing(file.with_suffix(".part")):
            checkpoint.save(file)
    return file
