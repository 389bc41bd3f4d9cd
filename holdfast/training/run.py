"""One training, with all that it leaves."""

from dataclasses import replace
from pathlib import Path

from lightning import seed_everything
from lightning.pytorch.loggers import Logger

from holdfast.callbacks.report.contact import write_sheet
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.summary import tell, understood
from holdfast.training.config import TrainConfig
from holdfast.training.describe import described, with_calibration, with_missing
from holdfast.training.fit import fitted
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
    sheet_folder,
    writing,
)
from holdfast.tta.processes import is_first
from holdfast.tta.results import log_result, metric_tables
from holdfast.tta.saying import warn
from holdfast.tta.tracking import create_loggers, finish, own_name
from holdfast.tta.trainers import check_device

#: What a run that is stopped while it calibrates leaves; ``calibrate=only`` goes on from it.
_TRAINED = "trained.ckpt"
#: An interrupted training leaves ``checkpoints/best.ckpt`` and curves, which nothing takes: it may
#: be run again.
PROGRAM = Program(
    "holdfast train",
    "runs/train",
    results=("source.ckpt", _TRAINED, "metrics.json"),
    others=(
        *("config.yaml", "csv/*", "checkpoints/best.ckpt", "*.ckpt.*.part"),
        "tensorboard/events.out.tfevents.*",
    ),
)
#: ``calibrate=only`` leaves a checkpoint beside whatever else is there.
RECALIBRATION = Program("holdfast train", "runs/train", results=("source.ckpt",), others=())


def train(config: TrainConfig) -> Path:
    """Train, or adopt weights; evaluate, calibrate and write the checkpoint.

    Returns:
        The folder with ``source.ckpt``, ``metrics.json`` and ``config.yaml``.
    """
    check_folder(PROGRAM, config)
    seed_everything(config.seed, workers=True, verbose=False)
    adopted = config.weights is not None
    default = _run_name(config)
    data, task, network, description = prepared(config)
    check_device(config.trainer)
    arguments = entry.trainer_arguments(config.trainer, max_epochs=config.epochs)
    with claimed(PROGRAM, config, default) as folder:
        name = folder.name if config.output is None else config.name or default
        loggers = create_loggers(
            config.wandb,
            folder,
            name=name,
            job_type="train",
            settings=to_dict(config),
            others=config.logger,
        )
        try:
            others, parts = None, {"logger": loggers, **arguments}
            if not adopted:
                others = fitted(config, network, task, data, folder, parts)
            if is_first():  # the rest is for one process
                checkpoint = described(config, network, description, task, data)
                _conclude(config, checkpoint, data, folder, loggers)
            if is_first() and others is not None:
                others.ended()
        finally:
            finish(loggers)
    return folder


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
