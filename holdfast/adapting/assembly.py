"""The parts of an adaptation run, made from its configuration and the source checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import seed_everything

from holdfast.adapting.config import AcceptConfig, AdaptConfig
from holdfast.callbacks import create_guard
from holdfast.callbacks.base import Guard
from holdfast.callbacks.preflight import Preflight, preflight
from holdfast.callbacks.settings import GuardConfig
from holdfast.datamodules import (
    ImageSet,
    StreamLoader,
    create_shift,
    create_stream,
    load_images,
)
from holdfast.datamodules.classes import in_classes_of
from holdfast.datamodules.ranges import value_range
from holdfast.datamodules.settings import AUTO, FilesConfig
from holdfast.datamodules.streams.stream import Stream
from holdfast.datamodules.streams.waiting import WaitingLoader
from holdfast.datamodules.watch import Arrivals, WatchConfig
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint, load_adapted
from holdfast.tta.config import Choice
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS, Method, UpdateConfig, create_method
from holdfast.tta.methods.scaling import scaled
from holdfast.tta.scores import check_groups
from holdfast.tta.tasks import Task
from holdfast.tta.tracking import own_name

#: Options that decide which values the network sees of an image, besides its size and channels.
_VALUES = ("window", "spacing", "around_roi")
#: What the Trainer is told where it may take a GPU of NVIDIA's.
_CUDA = ("auto", "gpu", "cuda")
#: Letters of the target's name in that of a run: there may be fifty of them.
_LONGEST = 100


class Guarded(NamedTuple):
    """What runs in a Trainer: the module, and its guard, None where there is to be none."""

    module: AdaptationModule
    guard: Guard | None


@dataclass(frozen=True)
class Assembly:
    """Makes the parts of a run; scripts, benchmark and notebooks share it.

    Images, stream and loader are made once, module and guard anew each time they are asked for.

    Args:
        config: of the run, its ``auto`` resolved: take ``Assembly.of``.
        checkpoint: the source.
        notes: what ``auto`` came to, a sentence each.

    Example:
        ::

            assembly = Assembly.of(configure(["source=runs/train/ours", "method=tent"]))
            module, guard = assembly.guarded()
            Trainer(max_epochs=1, callbacks=[guard]).fit(module, assembly.loader)
    """

    config: AdaptConfig
    checkpoint: SourceCheckpoint
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: AdaptConfig, checkpoint: SourceCheckpoint | None = None) -> "Assembly":
        """The parts of this configuration.

        Args:
            config: validated.
            checkpoint: the source, where it is loaded already.

        Raises:
            InputError: there is no such checkpoint, or options contradict each other.
        """
        checkpoint = checkpoint or SourceCheckpoint.load(config.source or "", config.model)
        if _labels(config) is not None and config.guard.kind != "on":
            raise InputError(
                "labels= tell the guard what to serve: take guard=on, or leave them out"
            )
        _check_waiting(config, checkpoint.meaning)
        options, notes = _resolved(config, checkpoint)
        config = replace(config, method=replace(config.method, options=options))
        return cls(config, checkpoint, tuple(notes))

    def guarded_by(self, kind: str, options: Any) -> "Assembly":
        """The same under another guard.

        Args:
            kind: of the guard.
            options: its settings.
        """
        guard = Choice(kind, options)
        return Assembly.of(replace(self.config, guard=guard), self.checkpoint)

    @property
    def name(self) -> str:
        """The run's name, where it has none."""
        config = self.config
        data = config.data.options
        target = getattr(data, "target", None) or getattr(data, "name", config.data.kind)
        names = [target] if isinstance(target, str) else target
        shown = "+".join(Path(str(name)).name for name in names)[:_LONGEST]
        parts = [config.method.kind, f"guard-{config.guard.kind}", shown, config.stream.kind]
        shift = create_shift(config.shift.kind, config.shift.options)
        if shift is not None:
            parts.append(str(shift))
        return own_name("-".join([*parts, f"seed{config.seed}"]))

    @cached_property
    def images(self) -> ImageSet:
        """The target's images, shifted as asked, in the source's geometry, scaling and classes.

        Raises:
            InputError: they do not fit the checkpoint, or there are none.
        """
        config, checkpoint = self.config, self.checkpoint
        options = _asked(config.data.options, checkpoint.meaning)
        if self.waits:  # until the first image comes, only the source knows their form
            size = options.size or list(checkpoint.size)
            options = replace(options, size=size, channels=options.channels or checkpoint.channels)
        images = load_images(config.data.kind, options, "target")
        _check_geometry(images, checkpoint)
        images = in_classes_of(
            images,
            tuple(checkpoint.class_names),
            config.data.options.classes,
            checkpoint.meaning.name,
        )
        shift = create_shift(config.shift.kind, config.shift.options)
        source, given = (checkpoint.low, checkpoint.high), config.data.options.given_range()
        low, high = (given or source) if self.waits else value_range(images.images, source, given)
        notes = (*images.notes, *_left_out(checkpoint.data, config.data.options))
        return replace(images, low=low, high=high, transform=shift, notes=notes)

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The columns by which metrics are split.

        Raises:
            InputError: there is no such column, or groups cannot be scored.
        """
        scoring, images = self.config.data.options, self.images
        columns = {name: images.column(name) for name in scoring.subgroups}
        if scoring.aggregate == "group":
            images.check_grouped()
            check_groups(images.labels, images.groups, columns)
        return columns

    @property
    def waits(self) -> bool:
        """Whether images are still to arrive."""
        return isinstance(self.config.data.options, WatchConfig)

    @cached_property
    def stream(self) -> Stream:
        """The order in which images arrive."""
        if self.waits:
            return Stream(np.arange(len(self.images)), (None,))
        return create_stream(self.config.stream.options, self.images, self.config.seed)

    @cached_property
    def loader(self) -> StreamLoader | WaitingLoader:
        """Serves the stream; an image that cannot be read is left out, with a reason."""
        options = self.config.stream.options
        if self.waits:
            data = self.config.data.options
            arrivals = Arrivals(Path(data.root).expanduser(), data.settled)
            waiting = (options.batch_size, options.max_wait, data.idle)
            return WaitingLoader(self.images, arrivals, *waiting)
        return StreamLoader(
            *(self.images, self.stream, options.batch_size, self.config.workers),
            window=options.window,
            lenient=True,
            device=self._gpu,
        )

    @property
    def _gpu(self) -> str | None:
        """The GPU that the run takes, if there is one and it may."""
        wanted = self.config.trainer.get("accelerator", "auto")
        return "cuda" if torch.cuda.is_available() and wanted in _CUDA else None

    def method(self) -> Method:
        """The method on the source's network.

        Raises:
            InputError: the network cannot be adapted so, or not with this batch size.
        """
        config, checkpoint = self.config, self.checkpoint
        kind = config.method.kind
        method = create_method(
            kind,
            checkpoint.build(),
            num_classes=len(checkpoint.class_names),
            task=checkpoint.meaning,
            **asdict(config.method.options),
            **{name: getattr(checkpoint, name) for name in METHODS[kind].uses},
        )
        if config.stream.options.seen == 1:
            with torch.no_grad():  # shows whether a layer would see a single value per channel
                method.predict(torch.zeros(1, checkpoint.channels, *checkpoint.size))
        return method

    def guarded(self) -> Guarded:
        """What runs in a Trainer, as it is at the start of the run (``start``).

        Raises:
            InputError: the network cannot be adapted so, or not with this batch size.
        """
        config, checkpoint, method = self.config, self.checkpoint, self.method()
        ours, seen = config.guard.kind == "on", config.stream.options.seen
        guard = create_guard(config.guard.kind, config.guard.options, checkpoint, _labels(config))
        chooses = ours and config.method.kind != "source"
        twins = Candidates(method, checkpoint.layer_moments) if chooses else None
        screen = ours or self.waits  # a batch that was sent off short teaches nothing
        module = AdaptationModule(method, seen, screen=screen, candidates=twins)
        if config.start is not None:
            method.load_adapted_state(load_adapted(config.start, checkpoint))
        return Guarded(module, guard)

    def preflight(self) -> Preflight:
        """What the first images of the stream say about adapting to them; the run's own randomness
        is left as it was.
        """
        config, options = self.config, self.config.guard.options
        loader = StreamLoader(
            self.images, self.stream, config.stream.options.batch_size, lenient=True
        )
        guard = options if isinstance(options, GuardConfig) else None
        shown, device = config.preflight.options.images, self._gpu or "cpu"
        with torch.random.fork_rng():
            return preflight(self.checkpoint, loader, shown, device, guard)

    def seed(self) -> None:
        """Let what follows draw as every run of this configuration does."""
        seed_everything(self.config.seed, workers=True, verbose=False)


def _asked(options: Any, task: Task) -> Any:
    """Options of the target's images, read as the source's task needs them: an answer at each pixel
    is brought back to where the pixel lay in its file, whether or not masks say that it is asked.
    """
    if task.dense and isinstance(options, FilesConfig) and options.task == AUTO:
        return replace(options, task=task.name)
    return options


def _check_waiting(config: AdaptConfig, task: Task) -> None:
    """Refuse what a stream cannot do that waits for its images.

    Args:
        config: of the run.
        task: of the source.

    Raises:
        InputError: there is such an option, or ``stream.max_wait`` without such a stream.
    """
    stream = config.stream
    if not isinstance(config.data.options, WatchConfig):
        if stream.options.max_wait is not None:
            raise InputError("stream.max_wait is for images that arrive: take data=watch with it")
        return
    clashes = {
        "accept": isinstance(config, AcceptConfig),
        f"a source of task {task.name}": task.dense,
        f"stream={stream.kind}": stream.kind != "iid",
        f"stream.passes={stream.options.passes}": stream.options.passes != 1,
        f"stream.window={stream.options.window}": stream.options.window is not None,
        f"shift={config.shift.kind}": config.shift.kind != "none",
        "report=true": config.report,
        f"check={config.check}": config.check is not None,
        f"preflight={config.preflight.kind}": config.preflight.kind != "off",
        f"trainer.devices={config.trainer.get('devices')}": config.trainer.get("devices", 1) != 1,
    }
    asked = config.data.options.task
    if asked not in (AUTO, task.name):
        raise InputError(
            f"data.task={asked}, and the source is of task {task.name}, by which an image that "
            "arrives is answered: leave data.task out"
        )
    for word, clash in clashes.items():
        if clash:
            raise InputError(
                f"data=watch takes images as they arrive, once, in one process, and {word} cannot "
                "be done with that: leave it out, or serve data=folder"
            )


def _labels(config: AdaptConfig) -> str | None:
    """The labels that the guard heeds; acceptance keeps its own to score by."""
    return None if isinstance(config, AcceptConfig) else config.labels


def _resolved(config: AdaptConfig, checkpoint: SourceCheckpoint) -> tuple[Any, list[str]]:
    """The method's options without ``auto``, and what there is to say of them."""
    batch_size, notes = config.stream.options.seen, []
    options = scaled(
        config.method.options,
        model=checkpoint.architecture,
        size=checkpoint.size,
        batch_size=batch_size,
    )
    if options != config.method.options:
        chosen = asdict(options)
        notes.append(f"method.optimizer={chosen['optimizer']} method.lr={chosen['lr']:g} (auto)")
    chooses = config.guard.kind == "on"
    if not chooses and isinstance(options, UpdateConfig) and options.normalization == "auto":
        notes.append(
            f"method.normalization={options.published.normalization} (auto: as published, since "
            "only guard=on chooses others)"
        )
        options = replace(options, normalization=options.published.normalization)
    return options, notes


def _check_geometry(images: ImageSet, checkpoint: SourceCheckpoint) -> None:
    """Refuse images of another form than the source's."""
    if not len(images):
        raise InputError("the target has no images: check data.target, and that its split is test")
    if images.channels == checkpoint.channels and _fits(images.size, checkpoint):
        return
    wanted = str(list(checkpoint.size)).replace(" ", "")  # as a shell takes it
    theirs, ours = ("x".join(map(str, size)) for size in (images.size, checkpoint.size))
    raise InputError(
        f"the target's images are {theirs} with {images.channels} channel(s), but the source was "
        f"trained on {ours} with {checkpoint.channels}: bring them to that form, "
        f"data.channels={checkpoint.channels} and, of files, data.size={wanted}, or train on "
        "images like these"
    )


def _fits(size: tuple[int, ...], checkpoint: SourceCheckpoint) -> bool:
    """Whether images of these sides fit: of a network that answers at each pixel all, in as many
    dimensions.
    """
    if checkpoint.meaning.dense:
        return len(size) == len(checkpoint.size)
    return size == checkpoint.size


def _left_out(trained: Mapping[str, Any], given: object) -> list[str]:
    """A note on the options that made the source's values what they are, and that the target has
    not got.
    """
    lost = [
        f"data.{name}={str(trained[name]).replace(' ', '')}"
        for name in _VALUES
        if trained.get(name) is not None and getattr(given, name, None) is None
    ]
    if not lost:
        return []
    return [f"the source was trained with {' '.join(lost)}, and the target is read without"]
