"""Options of ``benchmark.py study=paper``."""

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.benchmarks.options import StudyConfig, check_known
from holdfast.benchmarks.orders import BALANCED
from holdfast.datamodules.shifts import CORRUPTIONS
from holdfast.datamodules.streams import STREAMS
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

_OPTIMIZERS = ("adam", "sgd")


@dataclass
class PaperConfig(StudyConfig):
    """Options of ``benchmark.py study=paper``: the first of a list is the centre, the others are
    tried one axis at a time.
    """

    study: Literal["paper"] = option("paper", "what is measured")
    methods: list[str] = option(
        ["tent", "sar", "deyo", "roid", "dot", "dsbr", "dsbr_estimated"],
        "methods, or labels of variants, under each shift, optimiser and rate",
    )
    central: list[str] = option([], "further ones, at the centre alone: the memories of dsbr, say")
    close: list[str] = option(
        ["tent", "dsbr", "dsbr_estimated"],
        "those whose batch size and length of stream are varied too",
    )
    variants: dict[str, Any] = option(
        {
            "dsbr_estimated": {"kind": "dsbr", "target_prior": "estimated"},
            "dsbr_0": {"kind": "dsbr", "ema": 0.0},
            "dsbr_0.95": {"kind": "dsbr", "ema": 0.95},
            "dsbr_0.99": {"kind": "dsbr", "ema": 0.99},
        },
        "methods with options of their own, by label",
    )
    streams: list[str] = option(
        [BALANCED, "prevalence"],
        "orders of arrival, each at every point; balanced: all classes equally often",
    )
    shifts: list[str] = option(["none", "contrast"], "corruptions of the target; none: as it is")
    severity: int = option(3, "of the corruptions, 1 to 5")
    optimizers: list[str] = option(["adam", "sgd"], "optimisers")
    lr: dict[str, float] = option({"adam": 1e-2, "sgd": 2.5e-2}, "learning rate of each optimiser")
    rates: list[float] = option([1, 0.1], "multiples of it")
    batch_sizes: list[int] = option([64], "images that arrive together")
    batch_targets: list[str] = option([], "targets on which the batch size is varied; []: on all")
    lengths: list[int] = option([2048], "images of a stream, at least")
    page: str | None = option(
        None,
        "page whose tables are written anew, with pictures in a folder of its name; null: none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_repeated("streams", "shifts", "optimizers", "rates", "batch_sizes", "lengths")
        self.check_methods([*self.central, *self.close])
        check_known("shift", self.shifts, {"none", *CORRUPTIONS})
        check_known("stream", self.streams, {BALANCED, *STREAMS})
        check_known("optimizer", [*self.optimizers, *self.lr], _OPTIMIZERS)
        check_known("batch target", self.batch_targets, self.data.targets)
        if not 1 <= self.severity <= 5:
            raise InputError(f"severity={self.severity} must lie in 1..5")
        if min(*self.batch_sizes, *self.lengths) < 1:
            raise InputError("batch_sizes and lengths must be at least 1")
        if min(*self.rates, *self.lr.values()) <= 0:
            raise InputError("rates and lr must be above 0")
        for name in self.optimizers:
            if name not in self.lr:
                raise InputError(f"lr.{name} is missing: give each of optimizers a learning rate")
