"""Which arguments of Lightning's Trainer a program passes on: those that say where and how, not
what is served or kept; and which a Trainer of one's own may have.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from holdfast.tta.errors import InputError

#: Where and how a stream is computed; all others change which images are served, or how a method
#: learns.
_SERVING = frozenset(
    {
        *("accelerator", "strategy", "devices", "num_nodes", "precision", "deterministic"),
        *("benchmark", "detect_anomaly", "profiler", "default_root_dir", "log_every_n_steps"),
        *("enable_progress_bar", "enable_model_summary", "num_sanity_val_steps"),
    }
)
_FEWER = "serve a part of the target by a shorter table or folder"
#: What there is in place of an argument that a stream does not take.
_INSTEAD = {
    "max_epochs": "stream.passes=2 goes over the target twice",
    "min_epochs": "stream.passes=2 goes over the target twice",
    "max_steps": _FEWER,
    "max_time": _FEWER,
    "limit_train_batches": _FEWER,
    "overfit_batches": _FEWER,
    "fast_dev_run": "preflight=only looks at the first images",
    "gradient_clip_val": "steps are made smaller by method.lr",
    "accumulate_grad_batches": "stream.window=N lets an update see more images",
}
#: What training does not do without, and what there is in its place.
_TRAINING = {
    "enable_checkpointing": "the best epoch is kept in any case",
    "barebones": "trainer.enable_progress_bar=false is quiet",
    "fast_dev_run": "epochs=1 is quick",
    "limit_val_batches": "the best epoch is told by all validation images",
    "inference_mode": "it changes nothing here",
}


def check_serving(given: Mapping[str, Any]) -> None:
    """Refuse what changes the images that a stream serves, or how they are learned from.

    Raises:
        InputError: there is such an argument.
    """
    for name in _known(given):
        if name not in _SERVING:
            instead = _INSTEAD.get(name, "a stream does without it")
            raise InputError(
                f"trainer.{name} would change what is served or learned: leave it out; {instead}"
            )


def check_own(trainer: Trainer) -> None:
    """Refuse, before anything is set up, what a Trainer of one's own cannot do while it adapts.

    Precision, devices, loggers and limits of batches are honoured.

    Raises:
        InputError: there is such an argument.
    """
    strategy = trainer.strategy
    copies = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if not (copies or isinstance(strategy, SingleDeviceStrategy)):
        raise InputError(
            f"{type(strategy).__name__} does not keep the weights whole, which adaptation changes "
            "and takes back: use Trainer(devices=1), or strategy='ddp' in fit"
        )
    stage = trainer.state.fn
    assert stage is not None, "a Trainer that runs"
    if trainer.world_size > 1 and stage != TrainerFn.FITTING:
        raise InputError(
            f"Trainer.{stage.value} does not share gradients between its "
            f"{trainer.world_size} processes, so each would adapt a model of its own: use "
            "Trainer(devices=1), or Trainer.fit"
        )
    if trainer.gradient_clip_val:
        raise InputError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) does not reach the steps of a "
            "method: leave it out, and make steps smaller by the method's lr"
        )
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) does not reach "
            "the steps of a method, which learns from each batch: leave it out, and let the loader "
            "give larger batches"
        )
    if stage == TrainerFn.FITTING:
        _check_once(trainer)


def _check_once(trainer: Trainer) -> None:
    """Refuse more or less than one pass over the stream, unless it is counted in batches."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if trainer.max_steps != -1:
        raise InputError(
            f"Trainer(max_steps={trainer.max_steps}) counts updates, which may rest: leave it out, "
            "and use Trainer(max_epochs=1, limit_train_batches=N)"
        )
    if trainer.max_epochs != 1:
        raise InputError(
            "a stream is passed once, and this Trainer would repeat it "
            f"(max_epochs={trainer.max_epochs}): use Trainer(max_epochs=1), or let the loader "
            "repeat what is to be seen again"
        )


def check_training(given: Mapping[str, Any]) -> None:
    """Refuse what training cannot do with.

    Raises:
        InputError: there is such an argument.
    """
    for name in _known(given):
        if name in _TRAINING:
            raise InputError(
                f"trainer.{name} is settled by train.py: leave it out; {_TRAINING[name]}"
            )


def check_device(given: Mapping[str, Any]) -> None:
    """Refuse a GPU where there is none, in words of our own; a configuration may still name it.

    Raises:
        InputError: torch finds none.
    """
    wanted = str(given.get("accelerator", "auto"))
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    here["gpu"] = any(here.values())
    if not here.get(wanted, True):
        raise InputError(
            f"trainer.accelerator={wanted}: torch finds no such device here; take "
            "trainer.accelerator=cpu, or leave it out"
        )


def _known(given: Mapping[str, Any]) -> list[str]:
    """Arguments that the Trainer has; of others ``tta.entry.trainer_arguments`` says so."""
    known = inspect.signature(Trainer).parameters.keys() - {"callbacks", "logger"}
    return [name for name in given if name in known]
