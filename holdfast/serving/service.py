"""A service: its parts, and how they begin and end together."""

import os
import threading
from math import prod
from pathlib import Path
from time import monotonic, time
from typing import Any

from holdfast.adapting.assembly import Assembly
from holdfast.callbacks.chained import seal_of
from holdfast.serving.config import OWN_COLUMNS, ServeConfig
from holdfast.serving.engine import Engine
from holdfast.serving.keeping import Keeper, facts_of
from holdfast.serving.labels import NAME, LabelBox
from holdfast.serving.lane import Lane
from holdfast.serving.metrics import Figures
from holdfast.serving.network import model_of
from holdfast.serving.room import Room
from holdfast.serving.status import LISTED, REFRESH, status_page
from holdfast.serving.upload import Reader
from holdfast.tta.checkpoint import SourceCheckpoint

#: Threads that decode: more wait for the interpreter, not for the disk.
_DECODERS = 4
#: Batches without learning after which a person should know.
_IDLE_BATCHES = 50
#: Bytes of a value of an image in the journal.
_BYTES = 4
#: Seconds within which a batch that is being served should end.
_LAST = 60.0


class Service:
    """All that serves, but for HTTP.

    Args:
        config: of the service.
        source: that it serves.
        folder: of the results, which is this process's alone.

    Raises:
        InputError: parts do not go together, or the folder holds another service's state.
    """

    def __init__(self, config: ServeConfig, source: SourceCheckpoint, folder: Path) -> None:
        self.config, self.source, self.folder = config, source, folder
        serve = config.serve
        heeds = serve.labels and serve.adapt and config.guard.kind == "on"
        self.labels = LabelBox(folder, source.class_names) if heeds else None
        labels = str(folder / NAME) if heeds else None
        assembly = Assembly.of(config.adapting(labels), source)
        self.notes = assembly.notes
        self.method = assembly.config.method.kind
        self.guard = assembly.config.guard.kind
        self.figures = Figures()
        self.reader = Reader(
            config.data.reading(),
            (*source.size, source.channels),
            (source.low, source.high),
            serve.max_megapixels,
        )
        facts = facts_of(config, source)
        model = model_of(config, assembly)
        self.engine = Engine(config, assembly, model, folder, self.figures, seal_of(facts))
        self.keeper = Keeper(self.engine, folder, facts, serve.checkpoint)
        self.lane = Lane(
            self.keeper.serve, self.keeper.idle, serve.batch_size, serve.queue, serve.max_wait
        )
        pixels = prod(source.size) * source.channels
        self.room = Room(folder, serve.batch_size * pixels * _BYTES)
        self.decoders = min(_DECODERS, os.cpu_count() or 1)
        self._page, self._drawn, self._drawing = "", 0.0, threading.Lock()

    @property
    def title(self) -> str:
        """What is served, in words."""
        return f"{self.folder.name}: {self.method}, guard {self.guard}"

    @property
    def columns(self) -> tuple[str, ...]:
        """What requests may say of images."""
        return (*OWN_COLUMNS[1:], *self.config.serve.metadata)

    def start(self) -> None:
        """Take up what was left, and begin to serve."""
        self.keeper.start()
        self.lane.start()

    def stop(self) -> None:
        """Serve what waits, and leave everything as a restart needs it."""
        self.lane.close(_LAST)
        self.keeper.close(self.source, self.method)
        if self.labels is not None:
            self.labels.close()
        self.reader.close()

    @property
    def unready(self) -> str:
        """Why no requests should come; empty where they should. To ask may take a disk's time."""
        if not self.lane.alive:
            return "stopping"
        if self.lane.waiting >= self.lane.most:
            return "the queue is full"
        return self.room.missing

    def status(self) -> dict[str, Any]:
        """How the service stands, for programs."""
        engine, figures = self.engine, self.figures
        last = figures.batches[-1] if figures.batches else {}
        return {
            "name": self.folder.name,
            "method": self.method,
            "guard": self.guard,
            "classes": list(self.source.class_names),
            "images": engine.images,
            "batches": engine.batch,
            "seconds": round(time() - figures.began, 1),
            "images_since_start": figures.images,
            "skipped_batches": dict(figures.skips),
            "waiting": self.lane.waiting,
            "mode": engine.mode,
            "verdict": last.get("verdict"),
            "served_by": last.get("served_by"),
            "notes": self.remarks(),
            "events": list(engine.events)[-LISTED:],
            "last_batches": list(figures.batches),
        }

    def remarks(self) -> list[str]:
        """Sentences on what a person should look at."""
        figures, told = self.figures, list(self.notes)
        short, batches = figures.skips["short_batch"], len(figures.batches)
        if batches >= _IDLE_BATCHES and short > batches // 2:
            told.append(
                f"{short} batches had fewer images than serve.batch_size and taught nothing: "
                "serve.window=16 lets the model learn from images that come one by one"
            )
        if self.engine.mode == "frozen":
            told.append("the guard froze the model: overwrite=true begins anew from the source")
        return told

    def page(self) -> str:
        """The status page, drawn anew as often as browsers ask for it."""
        with self._drawing:
            if monotonic() - self._drawn > REFRESH / 2 or not self._page:
                state = self.status()
                facts = {
                    "images": f"{state['images']:,}",
                    "batches": f"{state['batches']:,}",
                    "mode": str(state["mode"] or "–"),
                    "verdict": str(state["verdict"] or "–"),
                    "served by": str(state["served_by"] or "–"),
                    "waiting": str(state["waiting"]),
                }
                args = (state["last_batches"], list(self.engine.events), self.engine.levels)
                self._page = status_page(self.title, facts, state["notes"], *args)
                self._drawn = monotonic()
            return self._page
