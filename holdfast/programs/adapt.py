"""Adapt a source model to an unlabelled stream, guarded, and leave predictions with their
evidence.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Callback, seed_everything
from lightning.pytorch.loggers import Logger

from holdfast.callbacks import (
    GUARDS,
    Alerts,
    CollapseGuard,
    GuardConfig,
    PredictionWriter,
    TraceWriter,
    create_guard,
)
from holdfast.callbacks import acceptance as acceptances
from holdfast.callbacks.base import Guard
from holdfast.callbacks.columns import PredictionsConfig
from holdfast.callbacks.preflight import (
    EXIT,
    NoPreflightConfig,
    OnlyPreflightConfig,
    Preflight,
    PreflightConfig,
    preflight,
)
from holdfast.callbacks.records import PICTURED
from holdfast.callbacks.report.acceptance import acceptance_page
from holdfast.callbacks.report.contact import write_sheet
from holdfast.callbacks.report.reporter import RunReporter, resamples
from holdfast.callbacks.settings import NoGuardConfig
from holdfast.callbacks.trajectory import save_trajectory, trajectory
from holdfast.datamodules import (
    DATA,
    SHIFTS,
    STREAMS,
    ImageSet,
    StreamLoader,
    create_shift,
    create_stream,
    load_images,
)
from holdfast.datamodules.classes import in_classes_of
from holdfast.datamodules.ranges import value_range
from holdfast.datamodules.shifts import expanded
from holdfast.datamodules.streams.stream import Stream
from holdfast.datamodules.streams.window import NewestOnly
from holdfast.datamodules.summary import tell, understood
from holdfast.tta import acceptance, entry
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.artifacts import (
    adapted_name,
    log_artifact,
    source_metadata,
    source_name,
    use_model,
)
from holdfast.tta.candidates import Candidates
from holdfast.tta.checkpoint import SourceCheckpoint, load_adapted, save_adapted, source_file
from holdfast.tta.config import read_arguments, resolve, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.folder import (
    Program,
    carry_out,
    check_folder,
    claimed,
    held,
    sheet_folder,
    writing,
)
from holdfast.tta.methods import METHODS, Method, create_method
from holdfast.tta.methods.scaling import scaled
from holdfast.tta.options import option
from holdfast.tta.parquet import check_parquet, to_parquet
from holdfast.tta.processes import Others, is_first, together
from holdfast.tta.results import log_images, log_result, metric_tables, prediction_sample
from holdfast.tta.scores import check_groups, scores
from holdfast.tta.tracking import WandbConfig, create_loggers, finish, own_name, wandb_runs
from holdfast.tta.trainers import check_device, check_serving

GROUPS = {
    "data": DATA,
    "method": {name: method.Config for name, method in METHODS.items()},
    "stream": STREAMS,
    "shift": SHIFTS,
    "guard": GUARDS,
    "preflight": {"off": NoPreflightConfig, "report": PreflightConfig, "only": OnlyPreflightConfig},
}
USAGE = (
    "usage: python adapt.py source=DIR_OR_CKPT [config.yaml ...] [key=value ...]\n\n"
    "Carry a source model through a stream of target images, adapting as it goes.\n"
    "python adapt.py accept … says by a few labels whether to deploy that: accept --help."
)
ACCEPT_USAGE = (
    "usage: python adapt.py accept source=DIR_OR_CKPT [labels=FILE.csv] [config.yaml ...] "
    "[key=value ...]\n\n"
    "Serve the stream by the source, by each choice of statistics and by the method, and say by a "
    "few\nlabels which to deploy. Exit status 0: the guarded method; 4: do not adapt; 3: not "
    "settled.\n"
    "Options are those of a run; it leaves acceptance.json and acceptance.html in output "
    "(runs/accept/NAME)."
)


PROGRAM = Program(
    "adapt.py",
    "runs/adapt",
    results=(
        "predictions.csv",
        "predictions.parquet",
        "trace.csv",
        "events.jsonl",
        "metrics.json",
        "adapted.ckpt",
        "trajectory.png",
        "report.html",
    ),
    others=(
        "config.yaml",
        "stream.csv",
        "preflight.json",
        "*.ckpt.*.part",
        "tensorboard/events.out.tfevents.*",
    ),
)
#: Options that decide which values the network sees of an image, besides its size and channels.
_VALUES = ("window", "spacing", "around_mask")
#: What is whole when pictures, page and loggers are left, in the order of writing.
_KEPT = ("predictions.csv", "trace.csv", "events.jsonl", "metrics.json", "adapted.ckpt")
#: Letters of the target's name in that of a run: there may be fifty of them.
_LONGEST = 100
#: Rows of the table of predictions that W&B gets.
_SAMPLE = 100


Options = TypeVar("Options", bound="AdaptConfig")


@dataclass
class AdaptConfig:
    """Options of ``adapt.py``."""

    data: Any = option(None, "data set of the target")
    method: Any = option("dsbr", "adaptation method")
    stream: Any = option("iid", "order in which the target's images arrive")
    shift: Any = option("none", "corruption of the target's images")
    guard: Any = option("on", "watch for collapse and correct it; or a published guard instead")
    preflight: Any = option(
        "off", "look at the stream's first images, and say whether to adapt: report or only"
    )
    source: str | None = option(None, "source checkpoint, or the folder of one; required")
    start: str | None = option(
        None, "adapted.ckpt of an earlier run to go on from; null: the source itself"
    )
    name: str | None = option(
        None, "name of the run; null: made from method, guard, target, stream, shift and seed"
    )
    output: str | None = option(
        None, "folder of the results; null: runs/adapt/NAME, or NAME-2, … where that holds some"
    )
    overwrite: bool = option(False, "replace the results of an earlier run in that folder")
    labels: str | None = option(
        None,
        "CSV with the columns id and label, which may grow while the run goes on: what it shows "
        "outranks the guard's unlabelled evidence",
    )
    report: bool = option(
        False, "leave report.html, a page about the run; it takes one pass more, without updates"
    )
    check: str | None = option(
        None,
        "only: load and check everything, say what was understood, leave a contact sheet in "
        "output, and adapt nothing",
    )
    seed: int = option(0, "seed of the stream")
    bootstrap: int = option(
        0,
        "resamples of groups (patients) for 95 % intervals of the metrics, e.g. 1000; 0: none, or "
        "500 "
        "with report=true",
    )
    workers: int = option(0, "processes that prepare batches")
    predictions: PredictionsConfig = option(PredictionsConfig(), "what is written of each image")
    trainer: dict[str, Any] = option(
        {},
        "arguments of lightning.Trainer, e.g. trainer.accelerator=gpu; one device is used unless "
        "trainer.devices=N says that N processes share each batch",
    )
    logger: Any = option(
        "csv", "loggers beside W&B: tensorboard, mlflow, or a list; trace.csv is always written"
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        entry.check_choice(self.check)
        check_serving(self.trainer)
        if self.predictions.parquet:
            check_parquet()


@dataclass
class AcceptConfig(AdaptConfig):
    """Options of ``adapt.py accept``."""

    labels: str | None = option(
        None,
        "CSV with the columns id and label, of 16 images or more, best of 100 to 500 taken at "
        "random; null: the target's own labels",
    )


def configure(argv: Sequence[str]) -> AdaptConfig:
    """The configuration of command-line words; what they leave open of the data is as in the source
    checkpoint.
    """
    return _configured(AdaptConfig, argv)


def _configured(schema: type[Options], argv: Sequence[str]) -> Options:
    argv = expanded(argv)
    source = read_arguments(argv, GROUPS).get("source")
    if source is None:
        raise InputError("source is missing: name the checkpoint of train.py, source=DIR_OR_CKPT")
    checkpoint = SourceCheckpoint.load(source)
    return resolve(schema, GROUPS, read_arguments(argv, GROUPS, {"data": checkpoint.data}))


def adapt(config: AdaptConfig) -> dict[str, Any]:
    """Run one pass over the stream and write its results.

    Returns:
        The content of ``metrics.json``.
    """
    _, metrics = carried_out(config)
    return metrics


@dataclass(frozen=True)
class _Loaded:
    """What a run needs, all of it checked, before anything is written; the configuration has
    ``auto`` resolved.
    """

    config: AdaptConfig
    checkpoint: SourceCheckpoint
    arguments: dict[str, Any]
    images: ImageSet
    columns: dict[str, Any]
    items: Stream
    module: AdaptationModule
    guard: Guard | None


def _loaded(config: AdaptConfig) -> _Loaded:
    """Load everything, and say what was understood of the images."""
    seed_everything(config.seed, workers=True, verbose=False)
    assert config.source is not None
    checkpoint = SourceCheckpoint.load(config.source)
    check_device(config.trainer)
    arguments = entry.trainer_arguments(
        config.trainer, max_epochs=1, enable_checkpointing=False, log_every_n_steps=1
    )
    images = target_images(config, checkpoint)
    tell({"target": images})
    columns = _columns(config, images)
    items = create_stream(config.stream.options, images, config.seed)
    module, guard, config = create_module(config, checkpoint)
    _warn_of_short(module, len(items))
    _started(module, config, checkpoint)
    return _Loaded(config, checkpoint, arguments, images, columns, items, module, guard)


def _started(
    module: AdaptationModule, config: AdaptConfig, checkpoint: SourceCheckpoint
) -> AdaptationModule:
    """The module where ``start`` says that it begins."""
    if config.start is not None:
        module.method.load_adapted_state(load_adapted(config.start, checkpoint))
    return module


def carried_out(config: AdaptConfig) -> tuple[Path, dict[str, Any]]:
    """The same as ``adapt``; returns the folder as well."""
    check_folder(PROGRAM, config)
    loaded = _loaded(config)
    guard, name = loaded.guard, config.name or _run_name(config)
    watch: list[Callback] = [] if guard is None else [guard]
    if isinstance(guard, CollapseGuard):
        watch.append(Alerts(guard.config.alert, name))  # refuses before anything is written
    with claimed(PROGRAM, loaded.config, name) as folder:
        name = folder.name if config.output is None else name
        return folder, _carried_out(loaded, watch, folder, name)


def _carried_out(
    loaded: _Loaded, watch: Sequence[Callback], folder: Path, name: str
) -> dict[str, Any]:
    """Serve the stream, and write what came of it; returns the metrics."""
    config, checkpoint, guard = loaded.config, loaded.checkpoint, loaded.guard
    images, items, stream = loaded.images, loaded.items, config.stream.options
    if is_first():
        _tell_ahead(folder, config, checkpoint, items, images)
    loader = StreamLoader(
        images, items, stream.batch_size, config.workers, stream.window, lenient=True
    )
    classes = tuple(checkpoint.class_names)
    writer = PredictionWriter(
        folder / "predictions.csv",
        classes,
        images.skipped,
        loader.lost,
        config.predictions.columns,
        len(items),
    )
    tracer = TraceWriter(folder, None if config.report else PICTURED)
    callbacks: list[Callback] = [*watch, NewestOnly(), writer, tracer]
    reporter = RunReporter(checkpoint, guard, writer, tracer) if config.report else None
    if reporter is not None:
        callbacks = reporter.around(callbacks)
    settings = to_dict(config)
    loggers = create_loggers(
        config.wandb, folder, name=name, job_type="adapt", settings=settings, others=config.logger
    )
    try:
        _log_inputs(loggers, config, checkpoint)
        trainer = entry.create_trainer(
            {"logger": loggers, "callbacks": callbacks, **loaded.arguments}
        )
        with entry.incomplete(lambda: writer.served, len(items)):
            entry.fit(trainer, loaded.module, loader)
        columns = {name: values[writer.rows] for name, values in loaded.columns.items()}
        metrics = _metrics(config, writer, tracer, guard, images, columns, classes)
        if is_first():
            _save(folder, config, checkpoint, metrics, loaded.module.method)
        if reporter is not None:
            twin, _, _ = create_module(config, checkpoint)
            with together():
                reporter.look_again(twin, loader, trainer, config.method.kind)
        others = Others(trainer)
        if not is_first():
            return metrics
        facts = {
            "metrics": metrics,
            "groups": images.groups[writer.rows],
            "columns": columns,
            "settings": settings,
        }
        late = _late(config, folder, name, guard, tracer, writer, reporter, facts)
        told = (loggers, config, checkpoint, folder, metrics, tracer, writer, images)
        late.append((folder / "loggers", partial(_log_outputs, *told)))
        carry_out(late, kept=_KEPT)
        others.ended()
    finally:
        finish(loggers)
    return metrics


def accept(config: AcceptConfig) -> tuple[Path, acceptance.Acceptance]:
    """Serve the stream in each way there is, and say by its labels which to deploy.

    Returns:
        The folder with ``acceptance.json`` and ``acceptance.html``, and what was found.
    """
    if config.guard.kind == "off" or config.method.kind == "source":
        raise InputError(
            "accept asks whether a guarded method pays: name a method, method=dsbr, and a guard, "
            "guard=on"
        )
    check_folder(acceptances.PROGRAM, config)
    loaded = _loaded(config)
    stream, together = config.stream.options, config.data.options.aggregate == "group"
    labels = acceptances.labels_of(
        *(loaded.images, loaded.items.rows, config.labels, loaded.checkpoint.class_names),
        called=config.data.options.classes,
        together=together,
    )
    loader = StreamLoader(
        *(loaded.images, loaded.items, stream.batch_size, config.workers),
        window=stream.window,
        lenient=True,
    )

    def made(kind: str, options: Any) -> tuple[AdaptationModule, Guard | None]:
        guard = replace(config.guard, kind=kind, options=options)
        with redirect_stdout(StringIO()):  # what is "auto" was said when the run was loaded
            module, watch, _ = create_module(replace(config, guard=guard), loaded.checkpoint)
        return _started(module, config, loaded.checkpoint), watch

    makers = {
        "guarded": partial(made, config.guard.kind, config.guard.options),
        "unguarded": partial(made, "off", NoGuardConfig()),
        "fixed": partial(made, "on", GuardConfig()),
    }
    with claimed(acceptances.PROGRAM, loaded.config, config.name or _run_name(config)) as folder:
        found = acceptances.acceptance(
            *(loaded.images, labels, loader, makers, loaded.arguments, config.seed),
            together=together,
        )
        acceptances.write(folder, found, acceptance_page(found, folder.name, to_dict(config)))
    return folder, found


def check(config: AdaptConfig) -> Path:
    """Load and check everything as the run would, and say and show what was understood.

    Returns:
        The page with the contact sheet.
    """
    sets = {"target": _loaded(config).images}
    folder = sheet_folder(config, _run_name(config))
    return write_sheet(folder, folder.name, understood(sets), sets)


def _warn_of_short(module: AdaptationModule, images: int) -> None:
    """Say ahead that a stream shorter than a batch teaches nothing."""
    if is_first() and module.screens_mix and images < module.batch_size:
        print(
            f"the stream has {images} images, fewer than a batch of {module.batch_size}, so "
            "nothing "
            "will be learned: take smaller batches, stream.batch_size=N"
        )


def _columns(config: AdaptConfig, images: ImageSet) -> dict[str, Any]:
    """The columns by which metrics are split; refuses groups that cannot be scored."""
    scoring = config.data.options
    columns = {name: images.column(name) for name in scoring.subgroups}
    if scoring.aggregate == "group":
        check_groups(images.labels, images.groups, columns)
    return columns


def _late(
    config: AdaptConfig,
    folder: Path,
    name: str,
    guard: Guard | None,
    tracer: TraceWriter,
    writer: PredictionWriter,
    reporter: RunReporter | None,
    facts: Mapping[str, Any],
) -> list[tuple[Path, Callable[[], object]]]:
    """The files that follow when the results are safe, and what writes each."""
    picture, table, page = (
        folder / file for file in ("trajectory.png", "predictions.parquet", "report.html")
    )
    steps: list[tuple[Path, Callable[[], object]]] = [
        (picture, partial(_draw, picture, name, guard, tracer, writer))
    ]
    if config.predictions.parquet:
        steps.append((table, partial(to_parquet, writer.path, table)))
    if reporter is not None:
        steps.append((page, partial(reporter.write, page, name=name, **facts)))
    return steps


def _save(
    folder: Path,
    config: AdaptConfig,
    checkpoint: SourceCheckpoint,
    metrics: Mapping[str, Any],
    method: Method,
) -> None:
    """Write what matters most, before anything that takes time or room."""
    scored, adapted = folder / "metrics.json", folder / "adapted.ckpt"
    state, kind = method.adapted_state(), config.method.kind
    steps: list[tuple[Path, Callable[[], object]]] = [
        (scored, partial(entry.write_json, scored, metrics)),
        (adapted, partial(save_adapted, adapted, checkpoint, kind, state)),
    ]
    carry_out(steps, kept=_KEPT[:-2])


def _tell_ahead(
    folder: Path, config: AdaptConfig, checkpoint: SourceCheckpoint, items: Stream, images: ImageSet
) -> None:
    """Write what is known before the run starts."""
    with writing(folder / "stream.csv"):
        items.save(folder / "stream.csv", images)
    if config.preflight.kind == "report":
        look = look_ahead(config, checkpoint, images)
        _write_look(folder, look)
        print(look)


def _write_look(folder: Path, look: Preflight) -> None:
    with writing(folder / "preflight.json"):
        entry.write_json(folder / "preflight.json", look.to_dict())


def _metrics(
    config: AdaptConfig,
    writer: PredictionWriter,
    tracer: TraceWriter,
    guard: Guard | None,
    images: ImageSet,
    columns: Mapping[str, Any],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Scores of what was served, what the guard did, and what taught nothing."""
    metrics = scores(
        *(writer.probabilities, writer.labels, classes, writer.domains),
        groups=images.groups[writer.rows],
        columns=columns,
        aggregate=config.data.options.aggregate == "group",
        bootstrap=resamples(config.bootstrap) if config.report else config.bootstrap,
    )
    metrics["alarms"] = guard.alarms if guard else 0
    metrics["resets"] = len(guard.resets) if guard else 0
    metrics["batches"] = len(tracer.rows)
    metrics["skipped_batches"] = tracer.skipped
    metrics["broken_images"] = writer.broken
    metrics["unreadable_images"] = writer.unreadable
    metrics["images_per_second"] = round(len(writer.labels) / writer.seconds, 1)
    return metrics


def _draw(
    path: Path, name: str, guard: Guard | None, tracer: TraceWriter, writer: PredictionWriter
) -> None:
    """The picture of what was served and what the guard saw, batch by batch."""
    levels = guard.levels.shown if isinstance(guard, CollapseGuard) else {}
    figure = trajectory(
        tracer.rows,
        tracer.events,
        writer.probabilities,
        writer.labels,
        writer.class_names,
        levels,
        name,
    )
    save_trajectory(figure, path)


def _log_inputs(loggers: list[Logger], config: AdaptConfig, checkpoint: SourceCheckpoint) -> None:
    """Tell W&B from which checkpoints the run starts."""
    if not config.wandb.artifacts:
        return
    assert config.source is not None
    use_model(
        loggers,
        "source",
        source_name(checkpoint),
        source_file(config.source),
        source_metadata(checkpoint),
    )
    if config.start is not None:
        use_model(loggers, "start", adapted_name(checkpoint), Path(config.start).expanduser())


def _log_outputs(
    loggers: list[Logger],
    config: AdaptConfig,
    checkpoint: SourceCheckpoint,
    folder: Path,
    metrics: dict[str, Any],
    tracer: TraceWriter,
    writer: PredictionWriter,
    images: ImageSet,
) -> None:
    """Give the loggers what the run came to."""
    if not wandb_runs(loggers):  # the others get figures; a long table is not read for nothing
        log_result(loggers, metrics)
        return
    columns = ("batch", "event", "reason", "message")
    tables = {
        "events": [{column: event.get(column) for column in columns} for event in tracer.events],
        "predictions": prediction_sample(writer.path, writer.labels, writer.class_names, _SAMPLE),
        **metric_tables(metrics),
    }
    picture = folder / "trajectory.png"
    pictures = {"trajectory": picture} if picture.is_file() else {}
    log_result(loggers, metrics, tables=tables, pictures=pictures)
    sample = prediction_sample(writer.path, writer.labels, writer.class_names, config.wandb.images)
    shown = []
    for row in sample:
        lost: dict[int, str] = {}
        seen = images.batch([int(writer.rows[row["position"]])], lost)["image"]
        shown += [] if lost else [(seen[0], row)]
    log_images(
        loggers,
        [
            (image, f"{row['id']}: {row['prediction']} ({row['confidence']:.0%}), {row['label']}")
            for image, row in shown
        ],
    )
    if config.wandb.artifacts:
        names = ("predictions.csv", "trace.csv", "events.jsonl", "metrics.json", "config.yaml")
        facts = {
            "method": config.method.kind,
            "guard": config.guard.kind,
            "stream": config.stream.kind,
        }
        log_artifact(
            loggers,
            f"predictions-{folder.name}",
            "predictions",
            [folder / name for name in names],
            facts,
        )
        log_artifact(loggers, adapted_name(checkpoint), "model", [folder / "adapted.ckpt"], facts)


def look_ahead(config: AdaptConfig, checkpoint: SourceCheckpoint, images: ImageSet) -> Preflight:
    """What the first images of the stream say about adapting to them; the run's own randomness is
    left as it was.
    """
    stream = config.stream.options
    items = create_stream(stream, images, config.seed)
    loader = StreamLoader(images, items, stream.batch_size, lenient=True)
    gpu = torch.cuda.is_available() and config.trainer.get("accelerator", "auto") in (
        "auto",
        "gpu",
        "cuda",
    )
    options = config.guard.options
    guard = options if isinstance(options, GuardConfig) else None
    images_looked_at, device = config.preflight.options.images, "cuda" if gpu else "cpu"
    with torch.random.fork_rng():
        return preflight(checkpoint, loader, images_looked_at, device, guard)


def target_images(config: AdaptConfig, checkpoint: SourceCheckpoint) -> ImageSet:
    """The target's images, shifted as asked, in the source's geometry, scaling and classes.

    Raises:
        InputError: they do not fit the checkpoint, or there are none.
    """
    images = load_images(config.data.kind, config.data.options, "target")
    if not len(images):
        raise InputError("the target has no images: check data.target, and that its split is test")
    if (images.channels, images.size) != (checkpoint.channels, checkpoint.size):
        wanted = str(list(checkpoint.size)).replace(" ", "")  # as a shell takes it
        theirs, ours = ("x".join(map(str, size)) for size in (images.size, checkpoint.size))
        raise InputError(
            f"the target's images are {theirs} with {images.channels} channel(s), but the source "
            f"was trained on {ours} with "
            f"{checkpoint.channels}: bring them to that form, data.channels={checkpoint.channels} "
            "and, of "
            f"files, data.size={wanted}, or train on images like these"
        )
    images = in_classes_of(images, tuple(checkpoint.class_names), config.data.options.classes)
    shift = create_shift(config.shift.kind, config.shift.options)
    low, high = value_range(
        images.images, (checkpoint.low, checkpoint.high), config.data.options.given_range()
    )
    notes = (*images.notes, *_left_out(checkpoint.data, config.data.options))
    return replace(images, low=low, high=high, transform=shift, notes=notes)


def _left_out(trained: Mapping[str, Any], given: object) -> list[str]:
    """A note on the options that made the source's values what they are, and that the target has
    not got.
    """
    lost = [
        f"data.{name}={str(trained[name]).replace(' ', '')}"
        for name in _VALUES
        if trained.get(name) is not None and getattr(given, name, None) is None
    ]
    return (
        [f"the source was trained with {' '.join(lost)}, and the target is read without"]
        if lost
        else []
    )


def create(config: AdaptConfig, checkpoint: SourceCheckpoint) -> tuple[Method, AdaptConfig]:
    """The method on the source's network, and the configuration with ``auto`` resolved.

    Raises:
        InputError: the network cannot be adapted so, or not with this batch size.
    """
    kind, batch_size = config.method.kind, config.stream.options.seen
    options = scaled(
        config.method.options,
        METHODS[kind].Config,
        model=checkpoint.network["kind"],
        size=checkpoint.size,
        batch_size=batch_size,
    )
    if options != config.method.options:
        chosen = asdict(options)
        print(f"method.optimizer={chosen['optimizer']} method.lr={chosen['lr']:g} (auto)")
    if config.guard.kind != "on" and getattr(options, "normalization", None) == "auto":
        print("method.normalization=batch (auto: as published, since only guard=on chooses others)")
        options = METHODS[kind].Config(**{**asdict(options), "normalization": "batch"})
    facts = {name: getattr(checkpoint, name) for name in METHODS[kind].uses}
    method = create_method(
        kind,
        checkpoint.build(),
        num_classes=len(checkpoint.class_names),
        **asdict(options),
        **facts,
    )
    if batch_size == 1:
        if config.guard.kind != "on" and getattr(options, "normalization", None) == "batch":
            print(
                "one image a batch: its own statistics tell little, so predictions suffer; take "
                "more, stream.batch_size=64"
            )
        with torch.no_grad():  # shows whether a layer would see a single value per channel
            method.predict(torch.zeros(1, checkpoint.channels, *checkpoint.size))
    return method, replace(config, method=replace(config.method, options=options))


def create_module(
    config: AdaptConfig, checkpoint: SourceCheckpoint
) -> tuple[AdaptationModule, Guard | None, AdaptConfig]:
    """What runs in a Trainer: the module, its guard (None where there is to be none), and the
    configuration as resolved.

    Raises:
        InputError: the network cannot be adapted so, or not with this batch size.
    """
    method, config = create(config, checkpoint)
    labels = None if isinstance(config, AcceptConfig) else config.labels  # it scores by them
    if labels is not None and config.guard.kind != "on":
        raise InputError("labels= tell the guard what to serve: take guard=on, or leave them out")
    guard = create_guard(config.guard.kind, config.guard.options, checkpoint, labels)
    if config.guard.kind != "on":
        return AdaptationModule(method, config.stream.options.seen, screen=False), guard, config
    twins = Candidates(method, checkpoint.layer_moments) if config.method.kind != "source" else None
    return AdaptationModule(method, config.stream.options.seen, candidates=twins), guard, config


def _run_name(config: AdaptConfig) -> str:
    target = getattr(config.data.options, "target", None) or getattr(
        config.data.options, "name", config.data.kind
    )
    target = "+".join(
        Path(str(name)).name for name in ([target] if isinstance(target, str) else target)
    )[:_LONGEST]
    parts = [config.method.kind, f"guard-{config.guard.kind}", target, config.stream.kind]
    shift = create_shift(config.shift.kind, config.shift.options)
    if shift is not None:
        parts.append(str(shift))
    return own_name("-".join([*parts, f"seed{config.seed}"]))


def _told(metrics: Mapping[str, Any]) -> list[str]:
    """What a run came to, in a few words each."""
    known = [key for key in ("balanced_accuracy", "last_quarter") if key in metrics]
    told = [f"{key.replace('_', ' ')} {metrics[key]:.1f} %" for key in known]
    if metrics.get("level") == "group":
        told[0] += f" of {metrics['groups']} groups"
    for name in ("alarm", "reset"):
        count = metrics[f"{name}s"]
        told.append(f"{count} {name}" if count == 1 else f"{count} {name}s")
    if metrics["skipped_batches"]:
        reasons = ", ".join(
            f"{reason.replace('_', ' ')} {count}"
            for reason, count in metrics["skipped_batches"].items()
        )
        told.append(
            f"no update in {sum(metrics['skipped_batches'].values())} of {metrics['batches']} "
            f"batches ({reasons})"
        )
    if metrics["broken_images"]:
        told.append(f"{metrics['broken_images']} images with broken pixels")
    if metrics["unreadable_images"]:
        told.append(f"{metrics['unreadable_images']} images without a prediction")
    return told


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    status = 0
    if argv[:1] == ["accept"]:
        return _main_accept(argv[1:])

    def run() -> None:
        config = configure(argv)
        if config.check is not None:
            print(f"checked, and nothing was adapted; contact sheet: {check(config)}")
            return
        if config.preflight.kind == "only":
            nonlocal status
            assert config.source is not None
            checkpoint = SourceCheckpoint.load(config.source)
            look = look_ahead(config, checkpoint, target_images(config, checkpoint))
            print(look)
            if config.output is not None:  # and nothing else, for a run's results may lie there
                folder = Path(config.output).expanduser()
                with held(folder):
                    _write_look(folder, look)
            status = EXIT[look.advice]
            return
        folder, metrics = carried_out(config)
        print(f"{folder}: {', '.join(_told(metrics))}")

    return entry.run(run, AdaptConfig, GROUPS, USAGE, argv) or status


def _main_accept(argv: Sequence[str]) -> int:
    status = 0

    def run() -> None:
        nonlocal status
        folder, found = accept(_configured(AcceptConfig, argv))
        print(f"{found}\n{folder / 'acceptance.html'}")
        status = acceptance.EXIT[found.advice]

    return entry.run(run, AcceptConfig, GROUPS, ACCEPT_USAGE, argv) or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
