"""The training itself: the network is left with the weights of its best epoch."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from holdfast.datamodules.source import SourceData
from holdfast.training.config import TrainConfig
from holdfast.tta import entry
from holdfast.tta.folder import (
    is_disk_error,
    write_error,
)
from holdfast.tta.networks import Network
from holdfast.tta.processes import Others, is_first
from holdfast.tta.source import SourceModule
from holdfast.tta.tasks import Task

#: Steps between two records of the training loss; an epoch of fewer steps has one record.
_LOGGED = 10


#: Folder of what a training needs to be gone on with, until it is done.
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"


class _Stopping(EarlyStopping):
    """Early stopping that, once it stopped a training, lets nobody go on with it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so again where a run that was over is taken up."""
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


def fitted(
    config: TrainConfig,
    network: Network,
    task: Task,
    data: SourceData,
    folder: Path,
    arguments: dict[str, Any],
    *,
    stopped: bool = False,
) -> Others:
    """Train the network; in the first process it is left with the weights of its best epoch.

    Args:
        config: of the run.
        network: what is trained.
        task: that it learns.
        data: on what.
        folder: of the run.
        arguments: of the Trainer.
        stopped: go on behind the last epoch that a run in this folder finished, if there is one.
    """
    watched = f"val/{task.watch}"
    best = ModelCheckpoint(
        folder / CHECKPOINTS,
        "best",
        monitor=watched,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,  # what an interrupted training left here is written over
    )
    last = ModelCheckpoint(
        folder / CHECKPOINTS,
        Path(LAST).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    stopping = _Stopping(
        watched,
        mode="max",
        patience=config.patience,
        check_on_train_epoch_end=False,
    )
    module = SourceModule(network, task, lr=config.lr, weight_decay=config.weight_decay)
    trainer = entry.create_trainer(
        {
            "callbacks": [stopping, best, last],
            "log_every_n_steps": _logged_every(data.steps),
            **arguments,
            "use_distributed_sampler": False,  # the data are dealt out by SourceData
        }
    )
    epoch = folder / CHECKPOINTS / LAST
    try:
        entry.fit(trainer, module, data, epoch if stopped and epoch.is_file() else None)
    except OSError as error:
        if is_disk_error(error):
            raise write_error(error, folder / CHECKPOINTS, "; no epoch is kept") from error
        raise
    others = Others(trainer)
    if is_first() and best.best_model_path:
        module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    return others


def forget(folder: Path) -> None:
    """Remove what it took to go on with a training, which is done."""
    for name in (LAST, "best.ckpt"):
        (folder / CHECKPOINTS / name).unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or somebody keeps other files there
        (folder / CHECKPOINTS).rmdir()


def _logged_every(steps: int) -> int:
    """Steps between two records of the loss: Lightning warns where an epoch has fewer."""
    return min(_LOGGED, max(1, steps))
