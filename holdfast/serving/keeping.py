"""How a service outlasts a restart: checkpoints, and a journal of what was taken in since."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from holdfast.callbacks.stream_checkpoint import Resumable, changing, progress_of
from holdfast.serving.answers import Answer
from holdfast.serving.config import ServeConfig
from holdfast.serving.engine import Engine
from holdfast.serving.journal import Journal, Recorded, read
from holdfast.serving.lane import Item
from holdfast.serving.wayback import bring
from holdfast.tta.checkpoint import SourceCheckpoint, save_adapted
from holdfast.tta.config import to_dict
from holdfast.tta.errors import InputError, WriteError, said
from holdfast.tta.folder import Program, writing
from holdfast.tta.normalization import statistics_in_use
from holdfast.tta.randomness import random_state, restore_random
from holdfast.tta.saying import say, warn
from holdfast.tta.streamfile import NAME, load_stream, save_stream

PROGRAM = Program(
    "holdfast serve",
    "runs/serve",
    results=("predictions.csv", "trace.csv", "events.jsonl", NAME, "adapted.ckpt"),
    others=(
        "config.yaml",
        "labels.csv",
        "stream.served",
        "stream.journal",
        f"{NAME}.before",
        "*.part",
    ),
)
#: Hexadecimal digits of the hash of its settings.
_SHORT = 16


def facts_of(config: ServeConfig, source: SourceCheckpoint) -> dict[str, str]:
    """What a service is: a restart under other settings would not go on but begin something
    else.
    """
    given = to_dict(config)
    asked = {name: given[name] for name in ("method", "guard", "start", "seed", "data")}
    asked |= {name: given["serve"][name] for name in ("adapt", "window", "batch_size", "metadata")}
    return {"source": source.hash, "stream": _short(asked)}


class Keeper:
    """Serves through an engine so that nothing is lost by a stop, a kill or a full disk.

    A batch is in the journal before it is served. A restart takes up the last checkpoint, and
    serves what the journal has since: rows end as if there had been no stop.

    Args:
        engine: that serves; the keeper calls it from the thread that calls the keeper.
        folder: of the results.
        facts: what the service is.
        every: seconds between checkpoints.
    """

    def __init__(
        self, engine: Engine, folder: Path, facts: Mapping[str, str], every: float
    ) -> None:
        self.engine, self.folder, self.facts, self.every = engine, folder, facts, every
        self._path = folder / NAME
        self._saved, self._saved_batch, self._due = monotonic(), -1, False
        self._journal: Journal | None = None

    def start(self) -> None:
        """Begin, or go on where the service was stopped.

        Raises:
            InputError: the folder holds another service's state.
        """
        content = load_stream(self._path)
        if content is not None:
            self._refuse_other(content)
            self._take_up(content["processes"][0])
        self.engine.start()
        journal = read(self.folder / "stream.journal") if content is not None else ()
        # A batch that was not served left its number to the next.
        left = {recorded.batch: recorded for recorded in journal}
        for recorded in left.values():
            if recorded.batch == self.engine.batch:  # others are in the checkpoint already
                self._serve_again(recorded)
        if content is not None:
            say(f"going on in {self.folder} behind batch {self.engine.batch}")
        self.save()

    def serve(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to a batch, which is kept first.

        Raises:
            WriteError: the disk takes no more; where the journal did not, nothing has changed.
        """
        assert self._journal is not None, "start comes first"
        self._journal.add(self.engine.batch, items)
        try:
            return self.engine.serve(items)
        except Exception:
            self._due = True  # or a restart would serve the batch again, with success maybe
            raise

    def idle(self) -> None:
        """Write a checkpoint where one is due: by time, or behind a batch that failed."""
        timely = monotonic() - self._saved >= self.every
        if self._due or (timely and self.engine.batch != self._saved_batch):
            self._due = False
            try:
                self.save()
            except WriteError as error:  # the journal goes on, and it is tried again in time
                self._saved, self._saved_batch = monotonic(), -1
                warn(str(error))

    def save(self) -> None:
        """Write a checkpoint, and empty the journal.

        Raises:
            WriteError: the disk takes no more; the checkpoint before, and the journal, are whole.
        """
        engine = self.engine
        for callback in engine.callbacks:
            for file in callback.files if isinstance(callback, Resumable) else ():
                file.sync()
        own = {
            "module": changing(engine.model.module),
            "callbacks": {c.state_key: progress_of(c) for c in engine.callbacks},
            "random": random_state(),
            "batch": engine.batch,
            "images": engine.images,
            "recent": engine.recent,
            "recent_ids": engine.recent_ids,
        }
        on_host = move_data_to_device(own, torch.device("cpu"))
        save_stream(self._path, {**self.facts, "processes": [on_host]})
        if self._journal is None:
            self._journal = Journal(self.folder / "stream.journal")
        else:
            self._journal.restart()
        self._saved, self._saved_batch = monotonic(), engine.batch
        engine.figures.saved.set(time())

    def close(self, source: SourceCheckpoint, method: str) -> None:
        """Write a last checkpoint and ``adapted.ckpt``, and close all files."""
        self.save()
        adapted = self.folder / "adapted.ckpt"
        learner = self.engine.model.module.method
        with writing(adapted):
            state, statistics = learner.adapted_state(), statistics_in_use(learner.model)
            save_adapted(adapted, source, method, state, statistics)
        self.engine.close()
        if self._journal is not None:
            self._journal.close()

    def _serve_again(self, recorded: Recorded) -> None:
        """Serve what was taken in before the service was killed."""
        try:
            self.engine.serve(recorded.items)
        except Exception as error:  # that may be why it was killed: it is not to end again by it
            what = "served again ({}): it is left out"
            if self.engine.batch > recorded.batch:
                what = "learned from again ({}): its answers stay"
            warn(f"batch {recorded.batch} could not be {what.format(said(error))}")

    def _refuse_other(self, content: Mapping[str, Any]) -> None:
        for name, told in (("source", "another source"), ("stream", "other settings")):
            if content.get(name) != self.facts[name]:
                raise InputError(
                    f"{self.folder} holds the state of a service with {told}: name another folder, "
                    "output=DIR, or begin anew, overwrite=true"
                )

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Bring the engine to where the checkpoint was written."""
        engine = self.engine
        bring(engine.model.module, state["module"])
        for callback in engine.callbacks:
            kept = state["callbacks"].get(callback.state_key)
            if isinstance(callback, Resumable):
                callback.go_on(kept)
            elif kept:
                callback.load_state_dict(kept)
        restore_random(state["random"])
        engine.batch, engine.images = state["batch"], state["images"]
        engine.recent, engine.recent_ids = state["recent"], list(state["recent_ids"])


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:_SHORT]
