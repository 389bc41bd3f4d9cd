"""From options to tasks: which data is there, which source models are missing, which cells are
still to be run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.benchmarks.cell import Cell, Task, Variant, create_cell
from holdfast.benchmarks.grid import NETWORK, Case, Grid, Setting, create_grid, settings, shard_of
from holdfast.benchmarks.options import GUARDS, BenchmarkConfig, StudyConfig, check_known
from holdfast.benchmarks.orders import SUBSET
from holdfast.benchmarks.sources import network_words
from holdfast.benchmarks.tables import CELL_KEYS, STREAM_KEYS, Row, key_of
from holdfast.datamodules import DATA, load_images
from holdfast.datamodules.phantom import SCANNERS
from holdfast.tta import entry
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.methods.settings import UpdateConfig
from holdfast.tta.options import option
from holdfast.tta.saying import warn

_HERE = Path("../shared/data")


@dataclass(frozen=True)
class Model:
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


def plan_grid(config: BenchmarkConfig) -> Grid:
    """The streams of this shard with their cases.

    Data that is not there is left out, and so is half of two classes: it is one class for good.

    Raises:
        InputError: no stream is left.
    """
    targets = present_targets(config)
    classes = {target.partition("/")[0]: count for target, count in targets.items()}
    axes = (config.shifts, config.severities, config.streams, config.seeds)
    streams = [
        setting
        for setting in settings([*targets], *axes, config.networks, config.batch_sizes)
        if setting.stream != SUBSET or classes[setting.data] > 2
    ]
    if not streams:
        raise InputError(f"streams=[{SUBSET}] needs data of three classes or more")
    cases = [Case(method, rate) for method in config.methods for rate in _rates(config, method)]
    return shard_of(create_grid(streams, cases, config.cells, config.per_stream), config.shard)


def _rates(config: BenchmarkConfig, label: str) -> list[float]:
    """The multiples of its learning rate that a method is run at: one where it has none."""
    learns = issubclass(METHODS[variant_of(config, label).kind].Config, UpdateConfig)
    return config.rates if learns else config.rates[:1]


def present_targets(config: StudyConfig) -> dict[str, int]:
    """The targets whose data is there, with their numbers of classes; of each other one a line says
    so.

    Raises:
        InputError: no data at all, or an unknown data set or domain.
    """
    if config.data.root is not None and not Path(config.data.root).expanduser().is_dir():
        raise InputError(
            f"data.root={config.data.root} is not a folder: name that of the files, or leave it out"
        )
    check_known(
        "data set",
        (target.partition("/")[0] for target in config.data.targets),
        {"phantom", *config.data.files},
    )
    files = {target: data_file(config, target.partition("/")[0]) for target in config.data.targets}
    absent = [target for target, file in files.items() if file is not None and not file.is_file()]
    for target in absent:
        warn(f"{target} is skipped: {files[target]} is not there (data.root=DIR says where)")
    present = [target for target in files if target not in absent]
    if not present:
        raise InputError(
            "none of the data is there: set data.root to its folder, or "
            "data.targets=[phantom/scanner_b]"
        )
    return {target: _class_count(config, *target.split("/", 1)) for target in present}


def _class_count(config: StudyConfig, data: str, domain: str | None = None) -> int:
    """Number of classes; a domain that the data has not got is refused, before any model is
    trained.
    """
    kind = kind_of(data)
    few = {"target_images": len(SCANNERS)} if data == "phantom" else {}
    options = entry.configured(
        _Source, {"data": DATA}, [f"data={kind}", *data_words(config, data, domain)]
    ).data.options
    return load_images(kind, replace(options, **few), "target").num_classes


@dataclass
class _Source:
    """The one option of a data set by itself."""

    data: Any = option("phantom", "data set")


def plan_models(config: StudyConfig, streams: Iterable[Setting]) -> dict[Setting, Model]:
    """The source model of each stream."""
    count = len(config.seeds) if config.models == "each" else min(config.models, len(config.seeds))
    roots = [
        Path(root).expanduser()
        for root in (config.sources, f"{config.output}/sources")
        if root is not None
    ]
    models = {}
    for setting in streams:
        trained = config.seeds[config.seeds.index(setting.seed) % count]
        places = [Model(setting.data, setting.network, trained, root) for root in roots]
        models[setting] = next((model for model in places if not model.missing), places[-1])
    return models


def plan_tasks(
    config: BenchmarkConfig,
    grid: Grid,
    models: Mapping[Setting, Model],
    results: Iterable[Row],
    references: Iterable[Row],
) -> list[Task]:
    """What is still to be run.

    Args:
        config: options.
        grid: from ``plan_grid``.
        models: from ``plan_models``, all trained.
        results: rows that are there.
        references: rows that are there.
    """
    finished = {(*key_of(row, CELL_KEYS), row["policy"]) for row in results}
    measured = {key_of(row, STREAM_KEYS) for row in references}
    policies = guards_of(config)
    tasks = []
    for setting, cases in grid:
        model = models[setting]
        words = data_words(config, setting.data, setting.target)
        cells: list[Cell] = []
        for case in cases:
            variant = variant_of(config, case.method)
            cell = create_cell(variant, case.rate, str(model.folder), words, setting.batch_size)
            key = key_of({**setting._asdict(), "method": variant.label, "lr": cell.lr}, CELL_KEYS)
            left = tuple(policy for policy in policies if (*key, policy) not in finished)
            if left:
                cells.append(replace(cell, policies=left))
        normalizations = key_of(setting._asdict(), STREAM_KEYS) not in measured
        if cells or normalizations:
            folder = str(model.folder)
            tasks.append(
                Task(
                    setting,
                    tuple(cells),
                    folder,
                    model.seed,
                    words,
                    config.images,
                    normalizations,
                )
            )
    return tasks


def guards_of(config: BenchmarkConfig) -> tuple[str, ...]:
    """The guards that run on each cell."""
    return tuple(GUARDS if config.policies is None else config.policies)


def missing_models(config: StudyConfig, models: Iterable[Model]) -> list[list[str]]:
    """How train.py is asked for each source model that is still to be trained."""
    return [_training_words(config, model) for model in dict.fromkeys(models) if model.missing]


def kind_of(data: str) -> str:
    """How train.py and adapt.py read a data set of the benchmark."""
    return "phantom" if data == "phantom" else "npz"


def data_words(config: StudyConfig, data: str, target: str | None = None) -> tuple[str, ...]:
    """The options of a data set: its file, and the target where there are several domains."""
    file = data_file(config, data)
    words = [] if file is None else [f"data.path={file}"]
    return (*words, *([] if target in (None, data) else [f"data.target={target}"]))


def data_file(config: StudyConfig, data: str) -> Path | None:
    """The file of a data set; None for the phantom, which has none."""
    if data == "phantom":
        return None
    root = _HERE if config.data.root is None else Path(config.data.root).expanduser()
    return root / config.data.files[data]


def variant_of(config: StudyConfig, label: str) -> Variant:
    """The method, or variant of one, that goes by this label."""
    options: dict[str, Any] = dict(config.variants.get(label, {"kind": label}))
    return Variant(label, options.pop("kind"), tuple(options.items()))


def _training_words(config: StudyConfig, model: Model) -> list[str]:
    return [
        f"data={kind_of(model.data)}",
        *data_words(config, model.data),
        f"seed={model.seed}",
        f"output={model.folder}",
        "overwrite=true",  # of what a stopped training left; a whole model is not missing
        *config.train,
        *config.train_of.get(model.data, []),
        *network_words(model.network),
    ]
