"""Options of ``benchmark.py``."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from holdfast.benchmarks.grid import NETWORK, ORDERS
from holdfast.callbacks.settings import Tuned
from holdfast.tta import entry, groups
from holdfast.tta.config import closest, to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.options import option
from holdfast.tta.settings import WandbConfig

#: The guard that leaves the method alone.
OFF = "off"
#: How the words of our guard say of how many images in a thousand there are labels.
LABELLED = "labelled="
#: And how to within how much the guard is told the true shares of the classes.
TOLD = "told="
#: The files of real images, by the names that tables give the data sets.
FILES = {
    "nuclei": "nuclei_patches.npz",
    "vessels": "vessel_patches.npz",
    "chest": "pneumoniamnist.npz",
    "mednist": "mednist_64.npz",
}
#: The networks of source models, by the names that tables give them, and how train.py is asked for
#: each. NAME/EPOCHS is one of so many epochs: a weak source.
NETWORKS: dict[str, tuple[str, ...]] = {
    NETWORK: (),
    "group": ("model.norm=group",),
    "resnet18": ("model=resnet18",),
    # It saw classes in the shares in which they came, and nothing but the images as they are.
    "imbalanced": ("balanced=false", "augment=[]"),
}
#: Axes of which each lists values.
_AXES = ("methods", "networks", "shifts", "severities", "streams", "rates", "batch_sizes", "seeds")
_OPTIMIZERS = ("adam", "sgd")


@dataclass
class DataOptions:
    """Which images."""

    root: str | None = option(None, "folder of the files; null: ../shared/data where it exists")
    files: dict[str, str] = option(
        dict(FILES),
        "data sets by name, each an .npz file with training images of one domain; the phantom "
        "needs none",
    )
    words: list[str] = option(
        [], "further words for the data of train.py and adapt.py, e.g. [data.task=multilabel]"
    )
    targets: list[str] = option(
        ["phantom/scanner_b"], "targets, DATA/DOMAIN, or DATA where it has but one domain"
    )


@dataclass
class BenchmarkConfig:
    """Options of ``benchmark.py``."""

    study: Literal["guard", "sensitivity", "paper", "methods", "measured"] = option(
        "guard",
        "what is made of the rows: figures of guards; ours with each constant a fifth lower and "
        "higher, and chosen with each data set left out; or docs/evidence/paper.md, results.md, "
        "measured.md",
    )
    data: DataOptions = option(DataOptions(), "images")
    methods: list[str] = option(["tent", "dsbr"], "methods, or labels of variants")
    variants: dict[str, Any] = option(
        {"dsbr_estimated": {"kind": "dsbr", "target_prior": "estimated"}},
        "methods with options of their own, by label",
    )
    networks: list[str] = option(
        [NETWORK],
        "source models: compact, group (GroupNorm), resnet18, imbalanced (compact, trained on "
        "classes as they come), and NAME/EPOCHS for one of so many epochs",
    )
    shifts: list[str] = option(["none", "noise"], "corruptions of the target; none: as it is")
    severities: list[int] = option([3], "severities of each corruption, 1 to 5")
    streams: list[str] = option(
        ["iid", "prevalence"],
        "orders of arrival; recurring: target and source in turn; balanced: classes equally often; "
        "subset: half of the classes, balanced; switch: another majority from the middle on; one: "
        "one class for good",
    )
    rates: list[Any] = option(
        [1, 10], "multiples of a method's default learning rate, or an optimiser and a rate: sgd .1"
    )
    policies: list[str] | None = option(
        None,
        "guards, by the names of adapt.py, alone or with options: on guard.NAME=VALUE, or on "
        "labelled=N, with labels of N images in a thousand, or on told=WIDTH, with the true shares "
        "of the classes to within so much; null: all there are; off, in studies of pages: the "
        "method alone",
    )
    constants: list[str] | None = option(
        None, "constants of the guard that study=sensitivity changes; null: all of guard.tuned"
    )
    batch_sizes: list[int] = option([64], "images that arrive together")
    images: int = option(
        3000,
        "length of a stream, at least: larger targets are thinned, smaller ones passed over again",
    )
    parts: list[Any] = option(
        [], "axes that differ, for each part of the cells: [{shifts: [blur], images: 64}]; []: one"
    )
    cells: int | None = option(
        None, "cells to take of the product, balanced over its axes; null: all"
    )
    per_stream: int | None = option(
        None, "cells that share a stream; null: all methods at all rates"
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
    cluster: str | None = option(
        None,
        "address of a dask scheduler whose workers run the cells, tcp://HOST:PORT; null: processes "
        "of this machine run them",
    )
    output: str = option("runs/benchmark", "folder of the results")
    page: str | None = option(
        None,
        "page whose tables are written anew, with rows and pictures in a folder of its name; null: "
        "none",
    )
    logger: Any = option(
        "csv", "loggers beside W&B: tensorboard, mlflow, or a list; results.csv is always written"
    )
    wandb: WandbConfig = option(WandbConfig(), "Weights & Biases")

    def __post_init__(self) -> None:
        for name in ("processes", "images", "cells", "per_stream", "batch_sizes", "severities"):
            value = getattr(self, name)
            if (
                min(
                    value if isinstance(value, list) else [1 if value is None else value], default=1
                )
                < 1
            ):
                raise InputError(f"{name}={value} must be at least 1")
        if max(self.severities, default=1) > 5:
            raise InputError(f"severities={self.severities} must lie in 1..5")
        if self.models != "each" and not (isinstance(self.models, int) and self.models >= 1):
            raise InputError(f"models={self.models} must be a number from 1 on, or each")
        if self.policies is not None:  # YAML's on and off
            yes = {"True": "on", "False": OFF}
            self.policies = [yes.get(name, name) for name in self.policies]
        self._refuse_repeated()
        self._check_names()
        for part in self.parts:
            self.of_part(part)

    @property
    def guards(self) -> tuple[str, ...]:
        """What runs on each cell."""
        return tuple(_guards() if self.policies is None else self.policies)

    @property
    def compared(self) -> bool:
        """Whether runs are held against source and control; else each is a row by itself."""
        return self.study in ("guard", "sensitivity")

    @property
    def settings(self) -> dict[str, Any]:
        """What rows depend on that is not among their columns."""
        names = ("models", "train", "train_of", "variants", *(["images"] * self.compared))
        return {name: getattr(self, name) for name in names}

    def of_part(self, part: Any) -> "BenchmarkConfig":
        """The options with what a part has of its own.

        Raises:
            InputError: it names something else than axes.
        """
        given = dict(part)
        own = given.pop("targets", self.data.targets)
        check_known("option of parts", given, {field.name for field in fields(self)} - {"parts"})
        names = [target.partition("/")[0] for target in own]
        check_known("data set of parts", names, {"phantom", *self.data.files})
        # Whoever names fewer targets wants fewer of all parts.
        targets = [target for target in own if target in self.data.targets]
        return replace(self, parts=[], data=replace(self.data, targets=targets), **given)

    def network_words(self, label: str) -> list[str]:
        """How train.py is asked for a network: a key of ``NETWORKS``, or NAME/EPOCHS.

        Raises:
            InputError: it is neither.
        """
        name, slash, epochs = label.partition("/")
        if name not in NETWORKS or (slash and not (epochs.isdigit() and int(epochs))):
            raise InputError(
                f"unknown network {label!r}: it must be one of {', '.join(NETWORKS)}, alone or "
                "with its epochs, compact/3"
            )
        return [*NETWORKS[name], *([f"epochs={epochs}"] if slash else [])]

    def _refuse_repeated(self) -> None:
        """Refuse axes that are empty, or name something twice."""
        for name in (*_AXES, *([] if self.policies is None else ["policies"])):
            values = getattr(self, name)
            if not values:
                raise InputError(f"{name} is empty: name at least one")
            if len(set(values)) < len(values):
                raise InputError(f"{name}={values} names something twice")

    def _check_names(self) -> None:
        """Refuse what nothing goes by."""
        from holdfast.datamodules.shifts import CORRUPTIONS
        from holdfast.tta.methods import METHODS

        for label, variant in self.variants.items():
            if not isinstance(variant, dict) or "kind" not in variant:
                raise InputError(
                    f"variants.{label} needs a kind: the method that it is a variant of"
                )
            check_known("method", [variant["kind"]], METHODS)
        check_known("method", self.methods, METHODS.view(type, **self.variants))
        check_known("data set of train_of", self.train_of, {"phantom", *self.data.files})
        check_known("shift", self.shifts, {"none", *CORRUPTIONS})
        check_known("stream", self.streams, {*groups.STREAMS, *ORDERS})
        alone = [] if self.compared else [OFF]
        guards = [name.split(" ")[0] for name in self.policies or []]
        check_known("policy", guards, [*_guards(), *alone])
        for policy in self.policies or []:
            _check_labelled(policy)
            _check_told(policy)
        check_known("constant", self.constants or (), {field.name for field in fields(Tuned)})
        for label in self.networks:
            self.network_words(label)
        for rate in self.rates:
            rate_of(rate)


def _check_told(policy: str) -> None:
    """Refuse shares to within what is no share, and for guards that heed none."""
    guard, *words = policy.split(" ")
    for word in words:
        if not word.startswith(TOLD):
            continue
        try:
            sound = 0 <= float(word.removeprefix(TOLD)) <= 1
        except ValueError:
            sound = False
        if not sound:
            raise InputError(f"policies: {policy} must say a share from 0 to 1, on told=.1")
        if guard != "on":
            raise InputError(f"policies: {policy} heeds no shares: take on {word}")
        if any(other.startswith(LABELLED) for other in words):
            raise InputError(f"policies: {policy} has shares of labels beside {word}: take one")


def _check_labelled(policy: str) -> None:
    """Refuse labels of no number of images, and for guards that heed none."""
    guard, *words = policy.split(" ")
    for word in words:
        count = word.removeprefix(LABELLED)
        if count == word:
            continue
        if not (count.isdigit() and 1 <= int(count) <= 1000):
            raise InputError(f"policies: {policy} must say of 1 to 1000 images, on labelled=10")
        if guard != "on":
            raise InputError(f"policies: {policy} heeds no labels: take on {word}")


def _guards() -> list[str]:
    """The guards that there are."""
    return [name for name in groups.GUARDS if name != OFF]


def rate_of(rate: Any) -> tuple[str | None, float]:
    """Optimiser and learning rate, or no optimiser and a multiple of the default rate.

    Raises:
        InputError: it is neither.
    """
    optimizer, _, value = str(rate).rpartition(" ")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise InputError(f"rates: {rate} must be above 0, a number or an optimiser and a number")
    if optimizer:
        check_known("optimizer", [optimizer], _OPTIMIZERS)
    return optimizer or None, number


def output_folder(config: BenchmarkConfig) -> Path:
    """The folder of the results; what lies there must have been measured under the same settings.

    Raises:
        InputError: it was not.
    """
    folder, new = Path(config.output).expanduser(), to_dict(config)
    old: Any = {}
    if all((folder / name).is_file() for name in ("results.csv", "config.yaml")):
        old = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    for name in config.settings if isinstance(old, dict) else ():
        if name in old and old[name] != new[name]:
            raise InputError(
                f"{config.output} holds results under {name}={old[name]}, and they would be mixed "
                f"with those under {name}={new[name]}: choose another folder, output=DIR"
            )
    return entry.output_folder(config.output, config, "holdfast benchmark")


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an unknown name."""
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name!r}: {closest(name, known)}")
