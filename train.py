"""Train a source model: images in, one checkpoint out that carries all that adaptation needs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from datamodules import DATA, load_images
from datamodules.source import SourceData
from tta import entry
from tta.checkpoint import SourceCheckpoint
from tta.config import to_dict
from tta.errors import InputError
from tta.networks import MODELS, create_network
from tta.options import option
from tta.scores import scores
from tta.source import SourceModule, channel_moments, evaluate, fisher_information, layer_moments, source_statistics
from tta.tracking import WandbConfig, create_loggers, finish, log_result

GROUPS = {"data": DATA, "model": MODELS}
USAGE = "usage: python train.py [config.yaml ...] [key=value ...]\n\nTrain a source model and write output/source.ckpt."


@dataclass
class TrainConfig:
    """Options of ``train.py``."""

    data: Any = option("phantom", "data set")
    model: Any = option("compact", "network")
    name: str | None = option(None, "name of the run; null: DATA-MODEL-seedN")
    output: str | None = option(None, "folder of the results; null: runs/train/NAME")
    seed: int = option(0, "seed of weights, order and augmentation")
    epochs: int = option(15, "epochs at most")
    patience: int = option(6, "epochs without a better validation balanced accuracy before training stops")
    batch_size: int = option(64, "images a batch")
    lr: float = option(4e-3, "peak learning rate of AdamW, one cycle")
    weight_decay: float = option(1e-2, "weight decay of AdamW")
    balanced: bool = option(True, "draw classes equally often")
    augment: list[str] = option(["flip", "rotate"], "MONAI augmentations: flip, mirror, rotate, noise, gamma")
    fisher_images: int = option(2000, "training images for the Fisher information that method=eata needs; 0: leave it out")
    workers: int = option(0, "processes that prepare training batches")
    trainer: dict[str, Any] = option({}, "arguments of lightning.Trainer, e.g. trainer.accelerator=gpu trainer.devices=1")
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        for field in ("epochs", "patience", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be at least 1")
        if self.fisher_images < 0:
            raise InputError("fisher_images must not be negative")
        if self.lr <= 0:
            raise InputError(f"lr={self.lr} must be above 0")


def train(config: TrainConfig) -> Path:
    """Train, evaluate and write the checkpoint.

    Returns:
        The folder with ``source.ckpt``, ``metrics.json`` and ``config.yaml``.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    name = config.name or f"{config.data.kind}-{config.model.kind}-seed{config.seed}"
    arguments = entry.trainer_arguments(config.trainer, max_epochs=config.epochs)
    data = SourceData(
        *(load_images(config.data.kind, config.data.options, split) for split in ("train", "val", "test")),
        batch_size=config.batch_size,
        balanced=config.balanced,
        augment=tuple(config.augment),
        workers=config.workers,
        seed=config.seed,
    )
    images, test = data.images["train"], data.images["test"]
    columns = {name: test.column(name) for name in config.data.options.subgroups}
    classes = images.num_classes
    network, description = create_network(
        config.model.kind, config.model.options, num_classes=classes, channels=images.channels, size=images.size
    )
    mean, std = channel_moments(data.in_order("train"))
    network.mean.copy_(mean)
    network.std.copy_(std)
    folder = entry.output_folder(config.output or f"runs/train/{name}", config, "train.py")
    best = ModelCheckpoint(folder / "checkpoints", "best", monitor="val/balanced_accuracy", mode="max", save_weights_only=True)
    stopping = EarlyStopping("val/balanced_accuracy", mode="max", patience=config.patience, check_on_train_epoch_end=False)
    loggers = create_loggers(config.wandb, folder, name=name, job_type="train", settings=to_dict(config))
    module = SourceModule(network, classes, lr=config.lr, weight_decay=config.weight_decay)
    try:
        trainer = entry.create_trainer({"logger": loggers, "callbacks": [stopping, best], "log_every_n_steps": 10, **arguments})
        trainer.fit(module, data)
        if best.best_model_path:
            module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
            Path(best.best_model_path).unlink()
            Path(best.dirpath or "").rmdir()
        weights = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
        results = {split: evaluate(network, data.in_order(split), classes) for split in ("train", "val", "test")}
        metrics = scores(
            *(results["test"].logits.softmax(1), results["test"].labels, images.class_names, test.domains.tolist()),
            groups=test.groups,
            columns=columns,
        )
        metrics["val_balanced_accuracy"] = round(100 * float(best.best_model_score or 0), 4)
        SourceCheckpoint(
            network=description,
            weights=weights,
            class_names=list(images.class_names),
            low=images.low,
            high=images.high,
            data=to_dict(config)["data"],
            metrics=metrics,
            fisher=fisher_information(network, data.sample("train", config.fisher_images), classes),
            layer_moments=layer_moments(network, data.sample("train", 4000), classes),
            **source_statistics(results["train"], results["val"], classes),
        ).save(folder / "source.ckpt")
        entry.write_json(folder / "metrics.json", metrics)
        log_result(loggers, metrics)
    finally:
        finish(loggers)
    return folder


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        folder = train(entry.configured(TrainConfig, GROUPS, argv))
        metrics = entry.read_json(folder / "metrics.json")
        print(f"{folder / 'source.ckpt'}: test balanced accuracy {metrics.get('balanced_accuracy', float('nan')):.1f} %")

    return entry.run(run, TrainConfig, GROUPS, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
