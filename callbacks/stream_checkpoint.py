"""Stopping and going on: a stream leaves a checkpoint now and then, from which a run continues as
if it had never been stopped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

from holdfast.tta.distributed import any_of_all, objects_of_all, place
from holdfast.tta.errors import InputError, WriteError, said
from holdfast.tta.growing import GrowingFile
from holdfast.tta.interrupts import Interrupts
from holdfast.tta.online import ServesBatches
from holdfast.tta.processes import own_rank
from holdfast.tta.randomness import random_state, restore_random
from holdfast.tta.saying import warn
from holdfast.tta.stages import StreamCallback
from holdfast.tta.step import StepOutputs
from holdfast.tta.streamfile import save_stream

#: Share of a run's time that checkpoints may take where nobody says how often.
_SHARE = 0.01
#: Seconds that the first one is thought to take, with a disk that has something else to do.
_FIRST = 0.03

#: Buffers of BatchNorm layers that hold the source's statistics; moving ones have other names.
_SOURCE_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@runtime_checkable
class Resumable(Protocol):
    """A callback that writes while a stream runs, and goes on where another run was stopped."""

    @property
    def files(self) -> Sequence[GrowingFile]:
        """The files that grow, in the process that writes them."""

    def progress(self) -> dict[str, Any]:
        """All that it takes to go on, sizes of files included: plain values and tensors."""

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Go on where ``progress`` was taken; called before the stream starts."""


class StreamCheckpoint(StreamCallback):
    """Writes ``stream.ckpt`` behind a batch, with the one before kept; place it last.

    SIGTERM and Ctrl-C are answered when the batch that is being served is done and a checkpoint is
    written; a second Ctrl-C at once.

    Args:
        path: of ``stream.ckpt``.
        facts: what the run is, by which a checkpoint is recognised.
        loader: of the stream, with ``state_dict``.
        every: batches between two; None: by time; 0: none.
    """

    def __init__(
        self, path: Path, facts: Mapping[str, Any], loader: Any, every: int | None = None
    ) -> None:
        self.path, self.facts, self.loader, self.every = path, dict(facts), loader, every
        self._interrupts = Interrupts()
        self._random: Mapping[str, Any] | None = None
        self._state: Mapping[str, Any] = loader.state_dict()
        self._batches = 0
        self._ended = self._told = False
        self._written, self._took = perf_counter(), _FIRST

    def resume(
        self,
        states: Sequence[Mapping[str, Any]],
        trainer: Trainer,
        module: ServesBatches,
    ) -> None:
        """Bring module, callbacks and loader to where the run was stopped, before it is fitted.

        Args:
            states: of ``stream.ckpt``, one of each process.
            trainer: that will run it, with all callbacks.
            module: as it was before the run.

        Raises:
            InputError: the run had another number of processes.
        """
        if len(states) != trainer.world_size:
            raise InputError(
                f"the run was begun by {len(states)} process(es), and cannot go on with "
                f"{trainer.world_size}: start as many as it had"
            )
        try:
            self._bring(states[own_rank()], trainer, module)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.path} does not fit this run ({said(error)}): another version of Holdfast "
                "left it, or its configuration was changed; go on with that version, or run again, "
                "overwrite=true"
            ) from error

    def _bring(self, state: Mapping[str, Any], trainer: Trainer, module: ServesBatches) -> None:
        module.load_state_dict({**module.state_dict(), **state["module"]})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            kept = state["callbacks"].get(callback.state_key)
            if kept is None:
                continue
            if isinstance(callback, Resumable):
                callback.go_on(kept)
            else:
                callback.load_state_dict(kept)
        self.loader.load_state_dict(state["loader"])
        self._state, self._random = self.loader.state_dict(), state["random"]

    def on_stream_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer signals from now on."""
        self._interrupts.catch()
        self._written = perf_counter()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """A batch begins, and is to be finished."""
        self._interrupts.busy = True
        if self._random is not None:
            restore_random(self._random["draws"])
            trainer.precision_plugin.load_state_dict(dict(self._random["precision"]))
            self._random = None

    def on_served(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutputs,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint where one is due, or where the run is asked to stop."""
        self._state = self.loader.state_dict()
        self._batches += 1
        stop = any_of_all(self._interrupts.asked is not None, pl_module.device)
        if self.every != 0 and any_of_all(stop or self._due(), pl_module.device):
            self._write(trainer, pl_module)
        self._interrupts.busy = False
        if stop:
            self._interrupts.answer()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All batches are done: writers are about to write what comes behind them."""
        self._ended = True

    def on_stream_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Signals mean again what they meant before."""
        self._interrupts.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Between two batches all is whole: keep it."""
        self._interrupts.release()
        between = self._batches > 0 and not (self._interrupts.busy or self._ended)
        if self.every != 0 and between and place()[1] == 1:
            self._write(trainer, pl_module)

    def _due(self) -> bool:
        """Whether a checkpoint is due, as the first process sees it; behind the last batch too."""
        if place()[0]:
            return False
        if self._state["position"] >= len(self.loader):
            return True
        if self.every:
            return self._batches % self.every == 0
        return perf_counter() - self._written >= self._took / _SHARE

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        began = perf_counter()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        kept = {callback.state_key: progress_of(callback) for callback in callbacks}
        own = {
            "module": changing(module),
            "callbacks": {name: state for name, state in kept.items() if state},
            "loader": dict(self._state),
            "random": {"draws": random_state(), "precision": trainer.precision_plugin.state_dict()},
        }
        states = objects_of_all(move_data_to_device(own, torch.device("cpu")))
        if trainer.is_global_zero:
            self._save(states, callbacks)
        self._written = perf_counter()
        self._took = max(self._written - began, self._took / 2)

    def _save(self, states: Sequence[Mapping[str, Any]], callbacks: Sequence[Callback]) -> None:
        """Let the disk have the files first, then what says how long they are; where it takes no
        checkpoint, the stream goes on.
        """
        try:
            for callback in callbacks:
                for file in callback.files if isinstance(callback, Resumable) else ():
                    file.sync()
            for file in getattr(self.loader, "files", ()):  # of a stream that waits
                file.sync()
            save_stream(self.path, {**self.facts, "processes": states})
        except WriteError as error:
            if not self._told:
                warn(f"{error}; until then the run leaves no checkpoint to go on from")
            self._told = True


def progress_of(callback: Callback) -> dict[str, Any]:
    """What a checkpoint keeps of a callback."""
    if isinstance(callback, Resumable):
        return dict(callback.progress())
    return dict(callback.state_dict())


def changing(module: LightningModule) -> dict[str, Any]:
    """What of a module's state a stream changes: not the source's weights and statistics."""
    fixed: set[str] = set()
    if isinstance(module, ServesBatches):
        method = module.method
        adapted = {id(parameter) for parameter in method.adapted.values()}
        fixed = {
            f"method.model.{name}"
            for name, p in method.model.named_parameters()
            if id(p) not in adapted
        }
        fixed |= {
            f"method.model.{name}"
            for name, _ in method.model.named_buffers()
            if name.rsplit(".", 1)[-1] in _SOURCE_STATISTICS
        }
    return {name: value for name, value in module.state_dict().items() if name not in fixed}
