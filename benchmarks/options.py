"""Options of ``benchmark.py``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from holdfast.adapting.config import GROUPS
from holdfast.benchmarks.orders import ORDERS
from holdfast.benchmarks.sources import FILES, network_words
from holdfast.datamodules.shifts import CORRUPTIONS
from holdfast.datamodules.streams import STREAMS
from holdfast.tta import entry
from holdfast.tta.config import closest, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.options import option
from holdfast.tta.tracking import WandbConfig


@dataclass
class DataOptions:
    """Which images."""

    root: str | None = option(None, "folder of the files; null: ../shared/data where it exists")
    files: dict[str, str] = option(
        dict(FILES),
        "data sets by name, each an .npz file with training images of one domain; the phantom "
        "needs none",
    )
    targets: list[str] = option(
        ["phantom/scanner_b"], "targets, DATA/DOMAIN, or DATA where it has but one domain"
    )


@dataclass
class StudyConfig:
    """What studies share: images, seeds, source models, and how the work is divided."""

    data: DataOptions = option(DataOptions(), "images")
    methods: list[str] = option(["tent", "dsbr"], "methods, or labels of variants")
    variants: dict[str, Any] = option(
        {"dsbr_estimated": {"kind": "dsbr", "target_prior": "estimated"}},
        "methods with options of their own, by label",
    )
    seeds: list[int] = option([0], "seeds of the streams")
    models: Any = option(
        1, "source models of a data set, trained with the first seeds; each: one a seed"
    )
    sources: str | None = option(
        None,
        "folder of source models, named DATA and SEED (of other networks than compact with "
        "-NETWORK behind); what it lacks is trained",
    )
    train: list[str] = option([], "words for train.py")
    train_of: dict[str, Any] = option(
        {}, "further words for train.py, by data set: {mednist: [epochs=2]}"
    )
    processes: int = option(2, "processes, of one thread each")
    shard: str | None = option(None, "run the k-th of n parts, written k/n")
    merge: list[str] = option([], "outputs of shards, to be put together; nothing is run then")
    output: str = option("runs/benchmark", "folder of the results")

    def __post_init__(self) -> None:
        self.refuse_small("processes")
        self.refuse_repeated("methods", "seeds")
        if self.models != "each" and not (isinstance(self.models, int) and self.models >= 1):
            raise InputError(f"models={self.models} must be a number from 1 on, or each")
        check_known("data set of train_of", self.train_of, {"phantom", *self.data.files})
        for label, variant in self.variants.items():
            if not isinstance(variant, dict) or "kind" not in variant:
                raise InputError(
                    f"variants.{label} needs a kind: the method that it is a variant of"
                )
            check_known("method", [variant["kind"]], METHODS)
        self.check_methods(self.methods)

    @property
    def settings(self) -> dict[str, Any]:
        """What rows depend on that is not among their columns."""
        return {name: getattr(self, name) for name in ("models", "train", "train_of", "variants")}

    def check_methods(self, names: Iterable[str]) -> None:
        """Refuse what is neither a method nor a variant."""
        check_known("method", names, {*METHODS, *self.variants})

    def refuse_small(self, *names: str) -> None:
        """Refuse options below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1")

    def refuse_repeated(self, *names: str) -> None:
        """Refuse lists that are empty, or name something twice."""
        for name in names:
            if not getattr(self, name):
                raise InputError(f"{name} is empty: name at least one")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)} names something twice")


@dataclass
class BenchmarkConfig(StudyConfig):
    """Options of ``benchmark.py``."""

    study: Literal["guard"] = option(
        "guard", "what is measured: guard, or paper (whose options study=paper --help lists)"
    )
    networks: list[str] = option(
        ["compact"],
        "networks of the source models: compact, group (GroupNorm), resnet18, and NAME/EPOCHS for "
        "one of so many epochs",
    )
    shifts: list[str] = option(["none", "noise"], "corruptions of the target; none: as it is")
    severities: list[int] = option([3], "severities of each corruption, 1 to 5")
    streams: list[str] = option(
        ["iid", "prevalence"],
        "orders of arrival; recurring: target and source in turn; balanced: classes equally often; "
        "subset: half of the classes, balanced; switch: another majority from the middle on; one: "
        "one class for good",
    )
    rates: list[float] = option([1, 10], "multiples of a method's default learning rate")
    policies: list[str] | None = option(
        None,
        "guards, by the names of adapt.py, alone or with options: on guard.NAME=VALUE; null: all "
        "there are",
    )
    cells: int | None = option(
        None, "cells to take of the product, balanced over its axes; null: all"
    )
    per_stream: int | None = option(
        None, "cells that share a stream; null: all methods at all rates"
    )
    images: int = option(
        3000,
        "length of a stream, at least: larger targets are thinned, smaller ones passed over again",
    )
    batch_sizes: list[int] = option([64], "images that arrive together")
    cost_rounds: int = option(5, "rounds in which the cost of guarding is timed; 0: not at all")
    report: bool = option(
        False,
        "leave report.html, a page about the results: ranks with intervals, figures, pictures",
    )
    logger: Any = option(
        "csv", "loggers beside W&B: tensorboard, mlflow, or a list; results.csv is always written"
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    @property
    def settings(self) -> dict[str, Any]:
        """What rows depend on that is not among their columns."""
        return {**super().settings, "images": self.images}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_small("images")
        for name in ("cells", "per_stream"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, or null for all")
        self.refuse_repeated(
            *("networks", "shifts", "severities", "streams", "batch_sizes", "rates")
        )
        for label in self.networks:
            network_words(label)
        if any(not 1 <= severity <= 5 for severity in self.severities):
            raise InputError(f"severities={self.severities} must lie in 1..5")
        if min(self.rates) <= 0:
            raise InputError(f"rates={self.rates} must be above 0")
        if min(self.batch_sizes) < 1:
            raise InputError(f"batch_sizes={self.batch_sizes} must be at least 1")
        if self.cost_rounds < 0:
            raise InputError("cost_rounds must not be negative")
        if self.policies is not None:
            self.policies = [
                {"True": "on", "False": "off"}.get(name, name) for name in self.policies
            ]  # YAML's on and off
            self.refuse_repeated("policies")
        check_known("policy", (name.split(" ")[0] for name in self.policies or []), GUARDS)
        check_known("shift", self.shifts, {"none", *CORRUPTIONS})
        check_known("stream", self.streams, {*STREAMS, *ORDERS})


def output_folder(config: StudyConfig) -> Path:
    """The folder of the results; what lies there or is merged must have been measured under the
    same settings.

    Raises:
        InputError: it was not.
    """
    new = to_dict(config)
    for folder, old in _recorded(config):
        for name in config.settings:
            if name in old and old[name] != new[name]:
                raise InputError(
                    f"{folder} holds results under {name}={old[name]}, and they would be mixed "
                    "with those under "
                    f"{name}={new[name]}: choose another folder, output=DIR"
                )
    return entry.output_folder(config.output, config, "holdfast benchmark")


def recorded_settings(config: StudyConfig) -> dict[str, Any]:
    """What the first of the shards that are merged was run with, but for where it was and who was
    told.
    """
    for _, options in _recorded(config):
        return {name: value for name, value in options.items() if name not in _ONE_RUN}
    return {}


def _recorded(config: StudyConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of the output and of the merged shards that hold results, with their
    configurations.
    """
    for part in (config.output, *config.merge):
        folder = Path(part).expanduser()
        if (folder / "results.csv").is_file() and (folder / "config.yaml").is_file():
            options = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
            if isinstance(options, dict):
                yield folder, {str(name): value for name, value in options.items()}


#: Options that say nothing of how rows were measured.
_ONE_RUN = ("output", "merge", "shard", "processes", "wandb", "logger", "report")


#: The guards that there are.
GUARDS = tuple(name for name in GROUPS["guard"] if name != "off")


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an unknown name."""
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name!r}: {closest(name, known)}")
