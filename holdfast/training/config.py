"""Options of training, and how words or Python values become them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.tta import entry, groups
from holdfast.tta.config import read_arguments, read_values, resolve
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.saying import warn
from holdfast.tta.settings import WandbConfig
from holdfast.tta.stopping import check_resume

GROUPS = {
    "data": groups.DATA,
    "model": groups.NETWORKS,
    "calibrate": groups.CALIBRATIONS,
}
#: Options of training itself.
_TRAINING = {
    "model",
    "epochs",
    "patience",
    "lr",
    "weight_decay",
    "balanced",
    "patch",
    "augment",
    "weights_mean",
    "weights_std",
    "weights_classes",
    "weights_accuracy",
}


@dataclass
class TrainConfig:
    """Options of ``train.py``."""

    data: Any = option("phantom", "data set")
    model: Any = option("compact", "network")
    output: str | None = option(
        None, "folder of the results; null: runs/train/NAME, or NAME-2, … where that holds some"
    )
    check: str | None = option(
        None,
        "only: load and check everything, say what was understood, leave a contact sheet in "
        "output, and train nothing",
    )
    epochs: int = option(15, "epochs at most")
    batch_size: int = option(64, "images a batch")
    lr: float = option(4e-3, "peak learning rate of AdamW, one cycle")
    augment: list[str] = option(
        ["flip", "rotate"], "MONAI augmentations: flip, mirror, rotate, noise, gamma"
    )
    balanced: bool = option(True, "draw classes equally often")
    patch: list[int] | None = option(
        None,
        "sides of the patches to train on, of images and masks, [H,W] or [D,H,W]; null: whole "
        "images",
    )
    patience: int = option(
        6,
        "epochs without a better validation balanced accuracy (of masks Dice, of findings AUROC) "
        "before training stops",
    )
    weight_decay: float = option(1e-2, "weight decay of AdamW")
    weights: str | None = option(
        None,
        "state dict (torch or safetensors), or MONAI bundle's folder, of a network trained "
        "elsewhere, to take in place of training",
    )
    weights_mean: list[float] | None = option(
        None,
        "mean of each channel that it subtracts, images being in 0..1; null: the file's, its "
        "library's, or 0",
    )
    weights_std: list[float] | None = option(
        None, "by what it then divides each channel; null: the file's, its library's, or 1"
    )
    weights_classes: Any = option(
        None,
        "classes of the file's outputs, in their order: a list, or a file with one a line; null: "
        "the data's order",
    )
    weights_accuracy: float | None = option(
        None,
        "balanced accuracy, in percent, that its owner states, of masks mean Dice, of findings "
        "macro AUROC; validation images that contradict it refuse the file",
    )
    calibrate: Any = option(
        "on", "the guard's numbers, from streams of validation images; quick: in half a minute"
    )
    source: str | None = option(None, "checkpoint, or the folder of one, for calibrate=only")
    resume: str | None = option(
        None,
        "folder of a training that was stopped, to go on with it behind its last whole epoch; its "
        "config.yaml says the rest, so this stands alone",
    )
    fisher_images: int = option(
        2000, "training images for the Fisher information that method=eata needs; 0: leave it out"
    )
    seed: int = option(0, "seed of weights, order and augmentation")
    name: str | None = option(None, "name of the run; null: DATA-MODEL-seedN")
    overwrite: bool = option(False, "replace the results of an earlier run in that folder")
    workers: int = option(0, "processes that prepare training batches")
    trainer: dict[str, Any] = option(
        {},
        "arguments of lightning.Trainer, e.g. trainer.accelerator=gpu; one device is used unless "
        "trainer.devices=N says that N processes share each batch",
        first=["accelerator", "devices", "strategy", "precision"],
    )
    logger: Any = option(
        "csv",
        "loggers beside W&B: tensorboard, mlflow, or a list; csv/metrics.csv is always written",
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        entry.check_choice(self.check)
        entry.check_counts(self, "seed", "workers")
        for field in ("epochs", "patience", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be at least 1")
        if self.fisher_images < 0:
            raise InputError("fisher_images must not be negative")
        if self.weights_std is not None and not (self.weights_std and min(self.weights_std) > 0):
            raise InputError(f"weights_std={self.weights_std} must be above 0")
        if self.lr <= 0:
            raise InputError(f"lr={self.lr} must be above 0")
        from holdfast.tta.trainers import check_training

        check_training(self.trainer)


def configure(argv: Sequence[str]) -> TrainConfig:
    """The configuration of command-line words; ``calibrate=only`` takes the data that they leave
    open from the checkpoint.
    """
    return resolve(TrainConfig, GROUPS, read_arguments(argv, GROUPS, _base(argv)))


def completed(given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of Python values; those of a group stand in a dictionary, or after a dot.

    Raises:
        InputError: as for words.
    """
    values = read_values(given, GROUPS)
    return resolve(TrainConfig, GROUPS, read_values(given, GROUPS, _checked(values)))


def _base(argv: Sequence[str]) -> dict[str, Any]:
    return _checked(read_arguments(argv, GROUPS))


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the values leave open, where they go together."""
    check_resume(values)
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
    model = values.get("model") or {}
    named = model.get("name") if model.get("kind") == "file" else None
    used = set() if named is None else {"model"}
    if only and (idle := sorted((_TRAINING - used) & values.keys())):
        warn(f"calibrate=only takes the checkpoint as it is, and does not use {', '.join(idle)}")
    if not only:
        return {}
    from holdfast.tta.checkpoint import SourceCheckpoint

    return {"data": SourceCheckpoint.load(values["source"], named).data}
