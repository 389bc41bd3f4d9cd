"""The training itself: the network is left with the weights of its best epoch."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
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


def fitted(
    config: TrainConfig,
    network: Network,
    task: Task,
    data: SourceData,
    folder: Path,
    arguments: dict[str, Any],
) -> Others:
    """Train the network; in the first process it is left with the weights of its best epoch."""
    watched = f"val/{task.watch}"
    best = ModelCheckpoint(
        folder / "checkpoints",
        "best",
        monitor=watched,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,  # what an interrupted training left here is written over
    )
    stopping = EarlyStopping(
        watched,
        mode="max",
        patience=config.patience,
        check_on_train_epoch_end=False,
    )
    module = SourceModule(network, task, lr=config.lr, weight_decay=config.weight_decay)
    trainer = entry.create_trainer(
        {
            "callbacks": [stopping, best],
            "log_every_n_steps": _logged_every(data.steps),
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


def _logged_every(steps: int) -> int:
    """Steps between two records of the loss: Lightning warns where an epoch has fewer."""
    return min(_LOGGED, max(1, steps))
