"""The data sets that tables are made on, and the source models that meet them: trained once each,
and never two of one name in a table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.benchmarks.config import BenchmarkConfig, check_known
from holdfast.benchmarks.grid import NETWORK, Setting
from holdfast.benchmarks.passes import load_checkpoint
from holdfast.benchmarks.tables import check_balanced
from holdfast.datamodules import DATA, load_images
from holdfast.datamodules.phantom import SCANNERS
from holdfast.training.config import GROUPS, TrainConfig
from holdfast.training.run import train
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.saying import warn
from holdfast.tta.tasks import TASKS

#: The data set that needs no file.
PHANTOM = "phantom"
_HERE = Path("../shared/data")
_QUIET = ("wandb.mode=disabled", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu")
#: The hash of each source model that the rows of a folder were measured with, by its name.
_FILE = "sources.json"


@dataclass(frozen=True)
class SourceModel:
    """A source model.

    Args:
        data: name of the data set.
        network: its label.
        seed: of its training.
        root: folder of its folder.
    """

    data: str
    network: str
    seed: int
    root: Path

    @property
    def name(self) -> str:
        """What its folder is called."""
        suffix = "" if self.network == NETWORK else f"-{self.network.replace('/', '-')}"
        return f"{self.data}{self.seed}{suffix}"

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return self.root / self.name

    @property
    def missing(self) -> bool:
        """Whether it is still to be trained."""
        return not (self.folder / "source.ckpt").is_file()


@dataclass
class _DataAlone:
    """The one option of a data set by itself."""

    data: Any = option(PHANTOM, "data set")


def data_file(config: BenchmarkConfig, data: str) -> Path | None:
    """The file of a data set; None for the phantom, which has none."""
    if data == PHANTOM:
        return None
    root = _HERE if config.data.root is None else Path(config.data.root).expanduser()
    return root / config.data.files[data]


def data_words(config: BenchmarkConfig, data: str, target: str | None = None) -> tuple[str, ...]:
    """How adapt.py is asked for a data set: its file, and the target where there are several
    domains.
    """
    file = data_file(config, data)
    path = [] if file is None else [f"data.path={file}"]
    domain = [] if target in (None, data) else [f"data.target={target}"]
    return (*path, *config.data.words, *domain)


def present_targets(config: BenchmarkConfig) -> dict[str, int]:
    """The targets whose data is there, with their numbers of classes; of each other one a line says
    so.

    Raises:
        InputError: no data at all, an unknown data set or domain, or data that the study is not
            about.
    """
    root = config.data.root
    if root is not None and not Path(root).expanduser().is_dir():
        raise InputError(
            f"data.root={root} is not a folder: name that of the files, or leave it out"
        )
    names = {target: target.partition("/")[0] for target in config.data.targets}
    check_known("data set", names.values(), {PHANTOM, *config.data.files})
    files = {target: data_file(config, name) for target, name in names.items()}
    present = [target for target, file in files.items() if file is None or file.is_file()]
    for target in config.data.targets:
        if target not in present:
            warn(f"{target} is skipped: {files[target]} is not there (data.root=DIR says where)")
    if not present:
        raise InputError(
            "none of the data is there: set data.root to its folder, or "
            "data.targets=[phantom/scanner_b]"
        )
    return {target: _class_count(config, *target.split("/", 1)) for target in present}


def _class_count(config: BenchmarkConfig, data: str, domain: str | None = None) -> int:
    """Number of classes; a domain that the data has not got, and a task that the study is not
    about, are refused before any model is trained.
    """
    words = [_kind(data), *data_words(config, data, domain)]
    chosen = entry.configured(_DataAlone, {"data": DATA}, words).data
    few = {"target_images": len(SCANNERS)} if data == PHANTOM else {}
    images = load_images(chosen.kind, replace(chosen.options, **few), "target")
    if config.study == "paper":
        check_balanced([TASKS[images.task].watch])
    return images.num_classes


def _kind(data: str) -> str:
    """How train.py is asked to read a data set."""
    return "data=phantom" if data == PHANTOM else "data=npz"


def plan_models(config: BenchmarkConfig, streams: Iterable[Setting]) -> dict[Setting, SourceModel]:
    """The source model of each stream."""
    count = len(config.seeds) if config.models == "each" else min(config.models, len(config.seeds))
    roots = [config.sources, f"{config.output}/sources"]
    models = {}
    for setting in streams:
        trained = config.seeds[config.seeds.index(setting.seed) % count]
        places = [
            SourceModel(setting.data, setting.network, trained, Path(root).expanduser().resolve())
            for root in roots
            if root is not None
        ]
        models[setting] = next((model for model in places if not model.missing), places[-1])
    return models


def missing_models(config: BenchmarkConfig, models: Iterable[SourceModel]) -> list[list[str]]:
    """How train.py is asked for each source model that is still to be trained."""
    return [
        [
            _kind(model.data),
            *data_words(config, model.data),
            *training_words(model.seed, model.folder),
            *config.train,
            *config.train_of.get(model.data, []),
            *config.network_words(model.network),
        ]
        for model in dict.fromkeys(models)
        if model.missing
    ]


def training_words(seed: int, folder: Path) -> list[str]:
    """The options of train.py that are alike for all source models."""
    # What is replaced is what a stopped training left: a whole model is not missing.
    return [*_QUIET, f"seed={seed}", f"output={folder}", "overwrite=true"]


def train_model(words: Sequence[str]) -> list[Sequence[str]]:
    """Train a source model; returns its words, the one report of the task."""
    train(entry.configured(TrainConfig, GROUPS, words))
    return [words]


def record_models(folder: Path, models: Iterable[SourceModel]) -> None:
    """Write down which source models the rows to come are measured with.

    Args:
        folder: of the results.
        models: all trained.

    Raises:
        InputError: rows that are there are of others.
    """
    known = recorded_models(folder)
    places = {model.name: model.folder for model in models}
    new = {name: load_checkpoint(str(place)).hash for name, place in places.items()}
    for name, digest in new.items():
        if known.get(name, digest) != digest:
            raise InputError(
                f"{folder} holds results of another source model than {places[name]}, and they "
                "would be mixed: choose another folder, output=DIR, or name those of the results, "
                "sources=DIR"
            )
    entry.write_json(folder / _FILE, {**known, **new})


def recorded_models(folder: Path) -> dict[str, str]:
    """The hashes of the source models of a folder's rows, by name; none where there are no rows."""
    path = folder / _FILE
    if not (path.is_file() and (folder / "results.csv").is_file()):
        return {}
    return {str(name): str(digest) for name, digest in entry.read_json(path).items()}
