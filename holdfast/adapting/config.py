"""Options of adaptation, and how words or Python values become them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.adapting.first import train_first
from holdfast.tta import entry, groups
from holdfast.tta.config import read_arguments, read_values, resolve
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.parquet import check_parquet
from holdfast.tta.settings import (
    BATCH_SIZE,
    SUFFIXES,
    TARGET,
    CheckpointConfig,
    PredictionsConfig,
    WandbConfig,
)
from holdfast.tta.stopping import check_resume

if TYPE_CHECKING:  # torch takes seconds, and --help needs none of it
    from holdfast.tta.checkpoint import SourceCheckpoint

GROUPS = {
    "data": groups.DATA,
    "method": groups.METHODS,
    "stream": groups.STREAMS,
    "shift": groups.SHIFTS,
    "guard": groups.GUARDS,
    "preflight": groups.PREFLIGHTS,
}

Options = TypeVar("Options", bound="AdaptConfig")


@dataclass
class AdaptConfig:
    """Options of ``adapt.py``."""

    source: str | None = option(None, "source checkpoint, or the folder of one; required")
    data: Any = option(None, "data set of the target", first={"target": TARGET})
    train: dict[str, Any] | None = option(
        None,
        "options of train.py, by which the source is trained first where source holds none yet",
    )
    method: Any = option("dsbr", "adaptation method")
    guard: Any = option("on", "watch for collapse and correct it; or a published guard instead")
    labels: str | None = option(
        None,
        "CSV with the columns id and label, which may grow while the run goes on: what it shows "
        "outranks the guard's unlabelled evidence; of images drawn at random, say "
        "guard.prevalence=labels as well",
    )
    output: str | None = option(
        None, "folder of the results; null: runs/adapt/NAME, or NAME-2, … where that holds some"
    )
    export: str | None = option(
        None,
        "file for what was adapted, to be used elsewhere, by its ending: .safetensors, .pt, .onnx "
        "or .pt2 (a program of torch.export); FILE.json beside it says where it comes from",
    )
    stream: Any = option(
        "iid", "order in which the target's images arrive", first={"batch_size": BATCH_SIZE}
    )
    report: bool = option(
        False, "leave report.html, a page about the run; it takes one pass more, without updates"
    )
    check: str | None = option(
        None,
        "only: load and check everything, say what was understood, leave a contact sheet in "
        "output, and adapt nothing",
    )
    preflight: Any = option("off", "look at the stream's first images, and say whether to adapt")
    shift: Any = option("none", "corruption of the target's images")
    model: str | None = option(
        None,
        "FILE.py:function that built the source's network, where one did: no code is run because "
        "a checkpoint names it",
    )
    start: str | None = option(
        None,
        "adapted.ckpt of an earlier run whose weights to begin with; null: the source's. A run "
        "that was stopped is gone on with by resume=DIR",
    )
    resume: str | None = option(
        None,
        "folder of a run that was stopped, to go on with it exactly; its config.yaml says the "
        "rest, so this stands alone",
    )
    checkpoint: CheckpointConfig = option(CheckpointConfig(), "where a run goes on after a stop")
    seed: int = option(0, "seed of the stream")
    name: str | None = option(
        None, "name of the run; null: made from method, guard, target, stream, shift and seed"
    )
    overwrite: bool = option(False, "replace the results of an earlier run in that folder")
    workers: int = option(0, "processes that prepare batches")
    bootstrap: int = option(
        0,
        "resamples of groups (patients) for 95 % intervals of the metrics, e.g. 1000; 0: none, or "
        "500 "
        "with report=true",
    )
    predictions: PredictionsConfig = option(PredictionsConfig(), "what is written of each image")
    trainer: dict[str, Any] = option(
        {},
        "arguments of lightning.Trainer, e.g. trainer.accelerator=gpu; one device is used unless "
        "trainer.devices=N says that N processes share each batch",
        first=["accelerator", "devices", "strategy", "precision"],
    )
    logger: Any = option(
        "csv", "loggers beside W&B: tensorboard, mlflow, or a list; trace.csv is always written"
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        entry.check_choice(self.check)
        entry.check_counts(self, "seed", "workers", "bootstrap")
        from holdfast.tta.trainers import check_serving

        check_serving(self.trainer)
        if self.export is not None and Path(self.export).suffix not in SUFFIXES.values():
            endings = ", ".join(SUFFIXES.values())
            raise InputError(f"export={self.export} must end in one of {endings}")
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
    return configured(AdaptConfig, argv)[0]


def configured(schema: type[Options], argv: Sequence[str]) -> "tuple[Options, SourceCheckpoint]":
    """The configuration of command-line words, and the source checkpoint that they name.

    Raises:
        InputError: the words name none, or what is no option.
    """
    from holdfast.datamodules.shifts import expanded

    argv = expanded(argv)
    given = read_arguments(argv, GROUPS)
    checkpoint = _source(given)
    values = read_arguments(argv, GROUPS, {"data": _known(checkpoint.data, given)})
    return resolve(schema, GROUPS, _formed(values, checkpoint.data)), checkpoint


def completed(
    schema: type[Options], given: Mapping[str, Any]
) -> "tuple[Options, SourceCheckpoint]":
    """The configuration of Python values, and the source checkpoint that they name.

    Args:
        schema: of the configuration.
        given: options by name; those of a group in a dictionary, or after a dot.

    Raises:
        InputError: as for words.

    Example:
        ``completed(AdaptConfig, {"source": "runs/train/ours", "method.lr": 1e-3})``
    """
    checkpoint = _source(given)
    known = _known(checkpoint.data, read_values(given, GROUPS))
    values = read_values(given, GROUPS, {"data": known})
    return resolve(schema, GROUPS, _formed(values, checkpoint.data)), checkpoint


def _known(trained: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the source's images, which hold for the target's unless somebody says
    otherwise; how a folder or table was cut into splits holds for no other.
    """
    data = given.get("data") or {}
    for name in _PLACES:
        here, there = trained.get(name), data.get(name)
        if here and there and Path(here).resolve() != Path(there).resolve():
            return {key: value for key, value in trained.items() if key != "shares"}
    return trained


#: Options that say where images lie.
_PLACES = ("root", "path")
#: Options that bring images to the source's form, said once, in training.
_FORM = ("size", "fit", "channels")


def _formed(values: dict[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Values in which files of another data set are brought to the form of the source's, where
    training said how and nobody says otherwise.
    """
    from holdfast.datamodules.settings import FilesConfig

    data = values.get("data") or {}
    kind = groups.DATA.get(data.get("kind", ""))
    if kind is None or not issubclass(kind, FilesConfig):
        return values
    form = {name: trained[name] for name in _FORM if trained.get(name) is not None}
    return {**values, "data": {**form, **data}}


def _source(values: Mapping[str, Any]) -> "SourceCheckpoint":
    from holdfast.tta.checkpoint import SourceCheckpoint

    check_resume(values)
    train_first(values)
    source = values.get("source")
    if source is None:
        raise InputError("source is missing: name the checkpoint of train.py, source=DIR_OR_CKPT")
    if not isinstance(source, str | Path):
        raise InputError(f"source is the path of a checkpoint, and not {type(source).__name__}")
    return SourceCheckpoint.load(source, values.get("model"))
