"""Settings of the guard."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from holdfast.tta.config import closest
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

if TYPE_CHECKING:  # torch takes seconds, and --help needs none of it
    from torch import Tensor

#: What ``guard.prevalence`` says where labels tell the shares of the classes.
LABELS: Final = "labels"
#: What rounding may leave of a sum of shares beyond 1.
_ROUNDING = 1e-5
#: Mildest first: a false alarm costs little, and a true one comes again.
_LADDER = ("slow", "slow", "slow", "restore", "reset", "freeze")


@dataclass
class NoGuardConfig:
    """Adapt unwatched, as published methods do."""


@dataclass(frozen=True)
class Tuned:
    """The numbers of the guard that were chosen by measurement, and no others.

    ``benchmark.py study=sensitivity`` tells what a fifth more or less of each changes.
    """

    sharpness: float = option(1.0, "power of a ratio of evidence that trust grows by at a look")
    looks: int = option(8, "looks of 64 images that trust grows with at most")
    memory: float = option(128.0, "images of a class that its past counts for at most")
    prior: float = option(8.0, "images by which a class is drawn to the source's")
    floor: float = option(
        0.05,
        "below which differences are noise, of divergence, nats per feature, and of information",
    )
    alone: float = option(0.8, "share of trust from which on a model serves alone")
    impossible: float = option(
        5.0, "log of trust lost at a look per share of answers that guard.prevalence rules out"
    )
    label: float = option(1.0, "log of trust that a label adds to who is right about its image")
    decay: float = option(0.7, "memory of the comparison with the control, per look")
    min_count: float = option(8.0, "images that a class needs before its separation counts")
    loosest: float = option(4.0, "times the default that a calibrated level or limit may be")
    jump: float = option(0.35, "change of the predicted mix, in total variation, that calls a look")
    patience: int = option(2, "the guard looks again after 1/patience of the time of calm")
    longest: int = option(32, "most batches between two looks")
    rest: int = option(8, "batches without updates after an alarm")

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise InputError(f"guard.tuned.{field.name} must not be negative")
        if self.floor == 0:
            raise InputError("guard.tuned.floor must be above 0: ratios need it")
        for name in ("looks", "memory", "patience", "longest"):
            if getattr(self, name) < 1:
                raise InputError(f"guard.tuned.{name} must be at least 1")
        for name in ("alone", "decay"):
            if getattr(self, name) > 1:
                raise InputError(f"guard.tuned.{name} must be at most 1")
        if self.decay == 1 or self.min_count < 2:
            raise InputError("guard.tuned.decay must be below 1, and min_count at least 2")


@dataclass
class AlertConfig:
    """Who is told of an alarm. Secrets belong into the environment: ``url=env:NAME``."""

    wandb: bool = option(True, "send a W&B alert, where a W&B run is active")
    command: Any = option(
        None,
        "command to call, a list or one string, without a shell; it gets the event as JSON on its "
        "standard input",
    )
    url: str | None = option(
        None, "http(s) address to post the event to as JSON; env:NAME takes it from the environment"
    )
    timeout: float = option(5.0, "seconds that a command or an address may take")

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 60:
            raise InputError(f"guard.alert.timeout={self.timeout} is outside (0, 60]")
        _ = self.words  # refuses what is no command
        if self.url is not None and not self.url.startswith("env:"):
            parts = _parts(self.url, self.url)
            if parts.username or parts.password or parts.query:
                raise InputError(
                    "guard.alert.url holds credentials or a query, which would end up in "
                    "config.yaml: put the address into "
                    "the environment and give guard.alert.url=env:NAME"
                )

    @property
    def words(self) -> list[str]:
        """The command, a word an item; empty where there is none."""
        try:
            words: list[Any] = (
                shlex.split(self.command)
                if isinstance(self.command, str)
                else list(self.command or ())
            )
        except (ValueError, TypeError):
            words = [None]
        if not all(isinstance(word, str) for word in words) or (
            self.command is not None and not words
        ):
            raise InputError(
                "guard.alert.command must be a command line, or a list of its words; put quotes "
                "around words that YAML takes "
                "for numbers or truth values, 'guard.alert.command=[notify,\"60\"]'"
            )
        return words

    def address(self) -> str | None:
        """The address, fetched from the environment where it is kept there.

        Raises:
            InputError: the environment does not have it, or it is none.
        """
        if self.url is None or not self.url.startswith("env:"):
            return self.url
        name = self.url.removeprefix("env:")
        if name not in os.environ:
            raise InputError(
                f"guard.alert.url={self.url}: the environment has no variable {name}: export it"
            )
        _parts(os.environ[name], self.url)
        return os.environ[name]


@dataclass
class GuardConfig:
    """Watch the adapted model, choose what serves, and correct before a collapse."""

    order: Literal["unknown", "mixed", "correlated"] = option(
        "unknown",
        "what you know of the stream: mixed, images of all classes come in turn; correlated, one "
        "class comes for a while, then another, or one for good",
    )
    prevalence: Any = option(
        None,
        "bounds of the true class shares: [LOW,HIGH] for the second of two classes, or of each "
        "class that you know, guard.prevalence.CLASS=[LOW,HIGH]; labels: what labels=FILE tells of "
        "them, which must be of images drawn at random; null: unknown",
    )
    false_alarm: float = option(
        0.01, "most chance of a false alarm in 100 batches of a calibrated source"
    )
    levels: dict[str, float] = option(
        {}, "by signal, where watching begins, in place of the calibrated level"
    )
    limits: dict[str, float] = option(
        {}, "by signal, the sum above its level that raises an alarm, in place of the calibrated"
    )
    ladder: list[str] = option(
        [*_LADDER],
        "correction of the first, second, ... alarm within the window; the last repeats",
    )
    window: int = option(1000, "batches over which alarms are counted")
    alert: AlertConfig = option(AlertConfig(), "who is told of an alarm")
    tuned: Tuned = option(Tuned(), "numbers chosen by measurement; there is no need to set them")

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError("guard.window must be at least 1")
        if not 0 < self.false_alarm <= 0.5:
            raise InputError(f"guard.false_alarm={self.false_alarm} is outside (0, 0.5]")
        if not self.ladder:
            raise InputError(
                "guard.ladder is empty: name at least one correction, guard.ladder=[reset]"
            )
        if tuple(self.ladder) != _LADDER:
            self._check_ladder()
        if self.levels or self.limits:
            self._check_signals()

    @property
    def by_labels(self) -> bool:
        """Whether labels are to tell the shares of the classes."""
        return isinstance(self.prevalence, str) and self.prevalence == LABELS

    def _check_ladder(self) -> None:
        # Here, for corrections need settings themselves, and torch, which takes seconds.
        from holdfast.callbacks.corrections import CORRECTIONS

        for rung in self.ladder:
            if rung not in CORRECTIONS:
                raise InputError(
                    f"guard.ladder has an unknown correction {rung!r}: {closest(rung, CORRECTIONS)}"
                )

    def _check_signals(self) -> None:
        from holdfast.callbacks.guard.signals import BY_NAME

        names = [name for name, signal in BY_NAME.items() if math.isfinite(signal.level)]
        for option_name in ("levels", "limits"):
            for name, value in getattr(self, option_name).items():
                if name not in names:
                    raise InputError(
                        f"guard.{option_name} has an unknown signal {name!r}: "
                        f"{closest(name, names)}"
                    )
                if value < 0:
                    raise InputError(f"guard.{option_name}.{name} must not be negative")

    def bounds(self, class_names: Sequence[str]) -> "Tensor | None":
        """Least and largest true share (2, C) of each class that shares which sum to 1 can have;
        None where nothing is known, or labels are to tell.

        Raises:
            InputError: bounds that no stream can have, or of an unknown class.
        """
        if self.prevalence is None or self.by_labels:
            return None
        import torch

        table = self.prevalence
        if not isinstance(table, Mapping):
            if len(class_names) != 2:
                raise InputError(
                    "guard.prevalence=[LOW,HIGH] is for two classes, and there are "
                    f"{len(class_names)}: name them, guard.prevalence.CLASS=[LOW,HIGH]"
                )
            table = {class_names[1]: table}
        bounds = torch.tensor([[0.0], [1.0]]).repeat(1, len(class_names))
        for name, pair in table.items():
            if name not in class_names:
                raise InputError(
                    f"guard.prevalence has an unknown class {name!r}: {closest(name, class_names)}"
                )
            bounds[:, class_names.index(name)] = torch.tensor(_bounds(name, pair))
        low, high = bounds.double().sum(1).tolist()
        if low > 1 + _ROUNDING or high < 1 - _ROUNDING:
            raise InputError("guard.prevalence has bounds that no shares summing to 1 lie within")
        return tightened(bounds)


def tightened(bounds: "Tensor") -> "Tensor":
    """Bounds (2, C) of shares without what the others' bounds rule out.

    Example:
        >>> import torch
        >>> tightened(torch.tensor([[0.75, 0.0, 0.0], [1.0, 1.0, 1.0]]))
        tensor([[0.7500, 0.0000, 0.0000],
                [1.0000, 0.2500, 0.2500]])
    """
    import torch

    low, high = bounds
    others_low, others_high = low.sum() - low, high.sum() - high
    least = low.maximum(1 - others_high)
    return torch.stack([least, high.minimum(1 - others_low).maximum(least)])


def _bounds(name: str, pair: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise InputError(f"guard.prevalence of {name} must be [LOW,HIGH], two shares from 0 to 1")
    return low, high


def _parts(address: str, shown: str) -> SplitResult:
    """The parts of an http(s) address."""
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise InputError(f"guard.alert.url={shown} must be an http or https address, or env:NAME")
    return parts
