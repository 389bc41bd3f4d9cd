"""Train a source model: images in, one checkpoint out that carries all that adaptation needs."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from holdfast.callbacks import GuardConfig
from holdfast.callbacks.calibrated import levels_of
from holdfast.callbacks.calibration import (
    CalibrationConfig,
    NoCalibrationConfig,
    QuickCalibrationConfig,
    calibrate,
)
from holdfast.callbacks.report.contact import write_sheet
from holdfast.datamodules import DATA, load_splits
from holdfast.datamodules.source import SourceData
from holdfast.datamodules.summary import tell, understood
from holdfast.tta import entry
from holdfast.tta.adoption import judged, output_names, output_order
from holdfast.tta.artifacts import log_artifact, source_metadata, source_name
from holdfast.tta.checkpoint import SourceCheckpoint, source_file
from holdfast.tta.config import read_arguments, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.folder import (
    Program,
    carry_out,
    check_folder,
    claimed,
    is_disk_error,
    sheet_folder,
    write_error,
    writing,
)
from holdfast.tta.metrics import balanced_accuracy
from holdfast.tta.networks import MODELS, Network, create_network
from holdfast.tta.options import option
from holdfast.tta.processes import Others, is_first
from holdfast.tta.results import log_result, metric_tables
from holdfast.tta.scores import check_groups, scores
from holdfast.tta.source import (
    Evaluation,
    SourceModule,
    channel_moments,
    evaluate,
    fisher_information,
    layer_moments,
    source_statistics,
)
from holdfast.tta.tracking import WandbConfig, create_loggers, finish, own_name
from holdfast.tta.trainers import check_device, check_training
from holdfast.tta.weights import adopt

GROUPS = {
    "data": DATA,
    "model": MODELS,
    "calibrate": {
        "on": CalibrationConfig,
        "quick": QuickCalibrationConfig,
        "off": NoCalibrationConfig,
        "only": CalibrationConfig,
    },
}
USAGE = (
    "usage: python train.py [config.yaml ...] [key=value ...]\n\n"
    "Train a source model, or adopt one with weights=FILE, and write output/source.ckpt."
)
#: Training images from which ``normalization=auto`` learns what each class looks like to each
#: layer.
_MOMENT_IMAGES = 4000
#: Validation images on which adopted weights are judged, at most.
_JUDGED_IMAGES = 512
#: Steps between two records of the training loss; an epoch of fewer steps has one record.
_LOGGED = 10
#: Options of training itself.
_TRAINING = {
    "model",
    "epochs",
    "patience",
    "lr",
    "weight_decay",
    "balanced",
    "augment",
    "weights_mean",
    "weights_std",
    "weights_classes",
    "weights_accuracy",
}
#: What a run that is stopped while it calibrates leaves; ``calibrate=only`` goes on from it.
_TRAINED = "trained.ckpt"
#: An interrupted training leaves ``checkpoints/best.ckpt`` and curves, which nothing takes: it may
#: be run again.
PROGRAM = Program(
    "train.py",
    "runs/train",
    results=("source.ckpt", _TRAINED, "metrics.json"),
    others=(
        *("config.yaml", "csv/*", "checkpoints/best.ckpt", "*.ckpt.*.part"),
        "tensorboard/events.out.tfevents.*",
    ),
)
#: ``calibrate=only`` leaves a checkpoint beside whatever else is there.
RECALIBRATION = Program("train.py", "runs/train", results=("source.ckpt",), others=())


@dataclass
class TrainConfig:
    """Options of ``train.py``."""

    data: Any = option("phantom", "data set")
    model: Any = option("compact", "network")
    name: str | None = option(None, "name of the run; null: DATA-MODEL-seedN")
    output: str | None = option(
        None, "folder of the results; null: runs/train/NAME, or NAME-2, … where that holds some"
    )
    overwrite: bool = option(False, "replace the results of an earlier run in that folder")
    check: str | None = option(
        None,
        "only: load and check everything, say what was understood, leave a contact sheet in "
        "output, and train nothing",
    )
    seed: int = option(0, "seed of weights, order and augmentation")
    epochs: int = option(15, "epochs at most")
    patience: int = option(
        6, "epochs without a better validation balanced accuracy before training stops"
    )
    batch_size: int = option(64, "images a batch")
    lr: float = option(4e-3, "peak learning rate of AdamW, one cycle")
    weight_decay: float = option(1e-2, "weight decay of AdamW")
    balanced: bool = option(True, "draw classes equally often")
    augment: list[str] = option(
        ["flip", "rotate"], "MONAI augmentations: flip, mirror, rotate, noise, gamma"
    )
    weights: str | None = option(
        None,
        "state dict, or MONAI bundle's folder, of a network trained elsewhere, to take in place of "
        "training",
    )
    weights_mean: list[float] | None = option(
        None, "mean of each channel that it subtracts, images being in 0..1; null: the file's, or 0"
    )
    weights_std: list[float] | None = option(
        None, "by what it then divides each channel; null: the file's, or 1"
    )
    weights_classes: Any = option(
        None,
        "classes of the file's outputs, in their order: a list, or a file with one a line; null: "
        "the data's order",
    )
    weights_accuracy: float | None = option(
        None,
        "balanced accuracy, in percent, that its owner states; validation images that contradict "
        "it refuse the file",
    )
    source: str | None = option(None, "checkpoint, or the folder of one, for calibrate=only")
    calibrate: Any = option(
        "on", "the guard's numbers, from streams of validation images; quick: in half a minute"
    )
    fisher_images: int = option(
        2000, "training images for the Fisher information that method=eata needs; 0: leave it out"
    )
    workers: int = option(0, "processes that prepare training batches")
    trainer: dict[str, Any] = option(
        {},
        "arguments of lightning.Trainer, e.g. trainer.accelerator=gpu; one device is used unless "
        "trainer.devices=N says that N processes share each batch",
    )
    logger: Any = option(
        "csv",
        "loggers beside W&B: tensorboard, mlflow, or a list; csv/metrics.csv is always written",
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        entry.check_choice(self.check)
        for field in ("epochs", "patience", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be at least 1")
        if self.fisher_images < 0:
            raise InputError("fisher_images must not be negative")
        if self.weights_std is not None and not (self.weights_std and min(self.weights_std) > 0):
            raise InputError(f"weights_std={self.weights_std} must be above 0")
        if self.lr <= 0:
            raise InputError(f"lr={self.lr} must be above 0")
        check_training(self.trainer)


def configure(argv: Sequence[str]) -> TrainConfig:
    """The configuration of command-line words; ``calibrate=only`` takes the data that they leave
    open from the checkpoint.
    """
    values = read_arguments(argv, GROUPS)
    only = (values.get("calibrate") or {}).get("kind") == "only"
    if only != (values.get("source") is not None):
        raise InputError(
            "calibrate=only and source=DIR_OR_CKPT belong together: the checkpoint is calibrated "
            "anew"
        )
    if only and values.get("weights") is not None:
        raise InputError(
            "weights= makes a new checkpoint, calibrate=only mends one: run the first, then the "
            "second if need be"
        )
    if only and (idle := sorted(_TRAINING & values.keys())):
        print(f"calibrate=only takes the checkpoint as it is, and does not use {', '.join(idle)}")
    base = {"data": SourceCheckpoint.load(values["source"]).data} if only else {}
    return entry.configured(TrainConfig, GROUPS, argv, base)


def train(config: TrainConfig) -> Path:
    """Train, or adopt weights; evaluate, calibrate and write the checkpoint.

    Returns:
        The folder with ``source.ckpt``, ``metrics.json`` and ``config.yaml``.
    """
    check_folder(PROGRAM, config)
    seed_everything(config.seed, workers=True, verbose=False)
    adopted = config.weights is not None
    default = _run_name(config)
    data, network, description = _prepared(config)
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
            others = None
            if not adopted:
                others = _fit(config, network, data, folder, {"logger": loggers, **arguments})
            if is_first():  # the rest is for one process
                checkpoint = _described(config, network, description, data)
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
        checkpoint = _with_calibration(config, checkpoint, data)
    except InputError as error:  # no reason to lose the training
        print(f"calibration was left out, so the guard keeps its default thresholds: {error}")

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
        data = _source_data(config)
        tell(data.images)
        _check_fit(data, SourceCheckpoint.load(config.source))
    else:
        data = _prepared(config)[0]
    check_device(config.trainer)
    entry.trainer_arguments(config.trainer)
    folder = sheet_folder(config, _run_name(config))
    return write_sheet(folder, folder.name, understood(data.images), data.images)


def _run_name(config: TrainConfig) -> str:
    """The run's name, where it has none."""
    made = "adopted" if config.weights is not None else f"seed{config.seed}"
    return own_name(f"{config.data.kind}-{config.model.kind}-{made}")


def _prepared(config: TrainConfig) -> tuple[SourceData, Network, dict[str, Any]]:
    """The images, and the network for them with its input scaling, or with the weights that it
    adopts.
    """
    data = _source_data(config)
    tell(data.images)
    _subgroups(config, data)  # a column that is not there is refused before training
    images = data.images["train"]
    network, description = create_network(
        config.model.kind,
        config.model.options,
        num_classes=images.num_classes,
        channels=images.channels,
        size=images.size,
    )
    if config.weights is not None:
        _adopt(config, network, description, data)
    else:
        mean, std = channel_moments(data.in_order("train"))
        network.mean.copy_(mean)
        network.std.copy_(std)
    return data, network, description


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
    data = _source_data(config)
    tell(data.images)
    _check_fit(data, checkpoint)
    images = data.images["train"]
    network, classes = checkpoint.build(), images.num_classes
    if checkpoint.fisher is None:
        fisher = fisher_information(network, data.sample("train", config.fisher_images), classes)
        checkpoint = replace(checkpoint, fisher=fisher)
    if checkpoint.layer_moments is None:
        checkpoint = replace(
            checkpoint,
            layer_moments=layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes),
        )
    checkpoint = _with_calibration(config, checkpoint, data)
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


def _check_fit(data: SourceData, checkpoint: SourceCheckpoint) -> None:
    """Refuse images that are not of the checkpoint's kind."""
    images = data.images["train"]
    ours = (checkpoint.class_names, checkpoint.channels, checkpoint.size)
    if (list(images.class_names), images.channels, images.size) != ours:
        raise InputError(
            "the images have other classes, channels or sides than the checkpoint's: give those it "
            "was trained on"
        )


def _source_data(config: TrainConfig) -> SourceData:
    options = config.data.options
    images = load_splits(config.data.kind, options, ("train", "val", "test"), optional=("test",))
    if "test" in images and options.aggregate == "group":
        test = images["test"]
        columns = {name: test.column(name) for name in options.subgroups}
        check_groups(test.labels, test.groups, columns)
    return SourceData(
        images["train"],
        images["val"],
        images.get("test"),
        batch_size=config.batch_size,
        balanced=config.balanced,
        augment=tuple(config.augment),
        workers=config.workers,
        seed=config.seed,
    )


def _subgroups(config: TrainConfig, data: SourceData) -> dict[str, Any]:
    """The columns of the test images, or else of the validation images, by which metrics are
    split.
    """
    images = data.images.get("test", data.images["val"])
    return {name: images.column(name) for name in config.data.options.subgroups}


def _adopt(
    config: TrainConfig, network: Network, description: dict[str, Any], data: SourceData
) -> None:
    """Take weights and input scaling from elsewhere, and say what was taken and what images say of
    it.
    """
    assert config.weights is not None
    classes = data.images["train"].class_names
    named: dict[str, Any] = {}
    if config.weights_classes is not None:
        names = output_names(config.weights_classes)
        named = {"order": output_order(names, classes), "outputs": len(names)}
    result = adopt(network, config.weights, description=description, **named)
    print(f"{config.weights}: {result}")
    for name in ("mean", "std"):
        buffer, given = getattr(network, name), getattr(config, f"weights_{name}")
        if given is not None and len(given) != len(buffer):
            raise InputError(
                f"weights_{name} has {len(given)} values for {len(buffer)} channel(s): give one "
                "for each"
            )
        if given is not None:
            buffer.copy_(torch.tensor(given))
    print(
        f"images, scaled to [0, 1], are standardised by mean {network.mean.tolist()} and std "
        f"{network.std.tolist()}"
    )
    sample = data.sample("val", _JUDGED_IMAGES)
    for sentence in judged(network, description, classes, sample, config.weights_accuracy):
        print(sentence)


def _fit(
    config: TrainConfig, network: Network, data: SourceData, folder: Path, arguments: dict[str, Any]
) -> Others:
    """Train the network; in the first process it is left with the weights of its best epoch."""
    best = ModelCheckpoint(
        folder / "checkpoints",
        "best",
        monitor="val/balanced_accuracy",
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,  # what an interrupted training left here is written over
    )
    stopping = EarlyStopping(
        "val/balanced_accuracy",
        mode="max",
        patience=config.patience,
        check_on_train_epoch_end=False,
    )
    module = SourceModule(
        network, data.images["train"].num_classes, lr=config.lr, weight_decay=config.weight_decay
    )
    trainer = entry.create_trainer(
        {
            "callbacks": [stopping, best],
            "log_every_n_steps": _logged_every(len(data.images["train"]), config.batch_size),
            **arguments,
            "use_distributed_sampler": False,  # the data are dealt out by SourceData
        }
    )
    try:
        entry.fit(trainer, module, data)
    except OSError as error:
        if is_disk_error(error):
            raise write_error(error, folder / "checkpoints", "; no epoch is kept") from error
        raise
    others = Others(trainer)
    if is_first() and best.best_model_path:
        module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
        Path(best.best_model_path).unlink()
        with suppress(OSError):  # somebody keeps other files there
            Path(best.dirpath or "").rmdir()
    return others


def _logged_every(images: int, batch_size: int) -> int:
    """Steps between two records of the loss: Lightning warns where an epoch has fewer."""
    return min(_LOGGED, max(1, images // batch_size))


def _described(
    config: TrainConfig, network: Network, description: dict[str, Any], data: SourceData
) -> SourceCheckpoint:
    """The network with all that adaptation needs to know of it and of its source."""
    images = data.images["train"]
    classes, names = images.num_classes, images.class_names
    weights = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in network.state_dict().items()
    }
    results = {split: evaluate(network, data.in_order(split), classes) for split in data.images}
    metrics = _metrics(config, data, results["test"]) if "test" in results else {}
    predicted, known = results["val"].logits.argmax(1), results["val"].labels
    metrics["val_balanced_accuracy"] = round(balanced_accuracy(predicted, known, classes), 4)
    return SourceCheckpoint(
        network=description,
        weights=weights,
        class_names=list(names),
        low=images.low,
        high=images.high,
        data=to_dict(config)["data"],
        metrics=metrics,
        fisher=fisher_information(network, data.sample("train", config.fisher_images), classes),
        layer_moments=layer_moments(network, data.sample("train", _MOMENT_IMAGES), classes),
        **source_statistics(results["train"], results["val"], classes),
    )


def _metrics(config: TrainConfig, data: SourceData, predicted: Evaluation) -> dict[str, Any]:
    """Scores of the test images; none where they have no labels."""
    test = data.images["test"]
    return scores(
        *(predicted.logits.softmax(1), predicted.labels, test.class_names, test.domains.tolist()),
        groups=test.groups,
        columns=_subgroups(config, data),
        aggregate=config.data.options.aggregate == "group",
    )


def _with_calibration(
    config: TrainConfig, checkpoint: SourceCheckpoint, data: SourceData
) -> SourceCheckpoint:
    """The checkpoint with the guard's numbers, where they are asked for."""
    if config.calibrate.kind == "off":
        return checkpoint
    calibration = calibrate(
        checkpoint,
        data.images["val"],
        config.calibrate.options,
        seed=config.seed,
        trainer=config.trainer,
    )
    limits = levels_of(GuardConfig(), calibration).limits
    shown = ", ".join(f"{name} {limits[name]:.2f}" for name in ("R", "gain"))
    print(
        f"calibration on {calibration['streams']} streams, {calibration['healthy']} of them "
        f"healthy; limits of the signals: {shown}"
    )
    return replace(checkpoint, calibration=calibration)


def _told(metrics: Mapping[str, Any]) -> str:
    """The score of a source model in words, of its test images where they have labels."""
    if "balanced_accuracy" in metrics:
        score = metrics["balanced_accuracy"]
        return f"test balanced accuracy {score:.1f} %"
    score = metrics.get("val_balanced_accuracy", float("nan"))
    return f"validation balanced accuracy {score:.1f} % (there are no labelled test images)"


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        config = configure(argv)
        if config.check is not None:
            print(f"checked, and nothing was trained; contact sheet: {check(config)}")
            return
        file = (
            recalibrate(config)
            if config.calibrate.kind == "only"
            else train(config) / "source.ckpt"
        )
        if not is_first():
            return
        checkpoint = SourceCheckpoint.load(file)
        print(f"{file}: {_told(checkpoint.metrics)}")

    return entry.run(run, TrainConfig, GROUPS, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
