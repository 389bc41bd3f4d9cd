"""What a step of each method costs, as ratios within one run: to a forward pass, to a plain loop of
the same method, and to what its arithmetic would take at the speed of a matrix product.

python -m holdfast.benchmarks.speed [quick=true] [gpu=true] [networks=[compact]] [methods=[tent]]
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from holdfast.benchmarks import tables
from holdfast.benchmarks.plain import LOOPS
from holdfast.benchmarks.rounds import in_turns, ratios
from holdfast.benchmarks.script import script
from holdfast.benchmarks.speed_cases import CASES, Case, Run, of_pixels, passes
from holdfast.benchmarks.summary import aligned
from holdfast.benchmarks.tried import tried
from holdfast.tta.errors import InputError
from holdfast.tta.methods import METHODS
from holdfast.tta.options import option
from holdfast.tta.style import BLUE, GREY, save, styled

FORWARD = "forward"
COLUMNS = (
    *("network", "sides", "batch", "precision", "variant", "ms", "ms_min", "ms_max", "images_s"),
    *("memory_mb", "of_forward", "of_plain", "of_bound", "of_method"),
)
#: Sides of the product whose speed is the bound, and how often it is taken.
_PRODUCT, _TIMES = {"cpu": 1024, "cuda": 8192}, 10
#: Variants whose operations are not counted: a pass takes its own batches, and has the arithmetic
#: of its method; of what was tried the counter knows nothing.
_UNCOUNTED = ("pass", "guarded pass", "compiled", "plain: rates", "rates")
#: Methods on networks other than the small ones, unless others are named.
_SOME = (*LOOPS, "dsbr")
#: What quick=true measures.
_QUICK = {"networks": ["compact", "resnet18"], "methods": ["tent", "eata", "sar"]}


@dataclass
class SpeedConfig:
    """Options of the speed benchmark."""

    networks: list[str] = option(list(CASES), "cases, by the names of their networks")
    methods: list[str] | None = option(
        None, "methods; null: all on compact, and tent, eata, sar, cotta and dsbr on the others"
    )
    precisions: list[str] = option(["32"], "32, or bf16 for steps under autocast")
    rounds: int = option(5, "rounds; every variant runs once a round, in turn")
    steps: int = option(3, "steps of a variant in a round")
    limit: float = option(3600.0, "seconds after which no further network is begun")
    quick: bool = option(False, "small networks and three methods, in three minutes")
    gpu: bool = option(False, "on a CUDA device, with batches for one, in six minutes")
    tried: bool = option(False, "beside them what was tried and left out, on networks of labels")
    output: str = option("runs/speed", "folder of speed.csv and speed.png")

    def __post_init__(self) -> None:
        if self.gpu and not torch.cuda.is_available():
            raise InputError("gpu=true: there is no CUDA device; leave it out")
        if self.quick:
            self.networks, self.methods = _QUICK["networks"], _QUICK["methods"]
        if self.gpu:
            self.precisions, self.limit = ["32", "bf16"], min(self.limit, 300)
        for what, names, known in (
            ("network", self.networks, CASES),
            ("method", self.methods or (), METHODS),
            ("precision", self.precisions, ("32", "bf16")),
        ):
            if strange := sorted(set(names) - set(known)):
                raise InputError(f"unknown {what} {strange[0]!r}: choose of {', '.join(known)}")
        if min(self.rounds, self.steps) < 1:
            raise InputError("rounds and steps must be at least 1")

    @property
    def device(self) -> torch.device:
        """Where all of it runs."""
        return torch.device("cuda" if self.gpu else "cpu")

    def methods_of(self, case: Case) -> list[str]:
        """The methods to measure on a case."""
        chosen = self.methods or (METHODS if case.name == "compact" else _SOME)
        return [name for name in chosen if case.does(name)]


def peak_memory(device: torch.device, work: Callable[[], Any]) -> float:
    """Megabytes by which a GPU's memory grows at most while the work is done; NaN on CPUs, whose
    allocator tells nobody.
    """
    if device.type != "cuda":
        return float("nan")
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a matrix product, the best of some."""
    side = _PRODUCT[device.type]
    left = torch.rand(side, side, device=device, dtype=dtype)
    [times] = in_turns({"product": lambda: left @ left}, _TIMES, device).values()
    return float(2 * side**3 / min(times))


def operations(work: Callable[[], Any]) -> float:
    """Floating-point operations of convolutions and products in the work."""
    with FlopCounterMode(display=False) as counted:
        work()
    return float(counted.get_total_flops())


def measure(case: Case, precision: str, config: SpeedConfig, told: Any) -> Iterator[dict[str, Any]]:
    """Rows of the variants on one case, which take turns."""
    device, dtype = config.device, torch.bfloat16 if precision == "bf16" else torch.float32
    batches, variants = case.batches(config.steps, device), _variants(case, config)
    work, memory = {}, {}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for name, run in variants.items():  # the first steps set things up, and are not timed
            run(batches[:1])
            memory[name] = peak_memory(device, partial(run, batches[:1]))
            if not name.startswith(_UNCOUNTED):
                work[name] = operations(partial(run, batches[:1]))
        bound = product_speed(device, dtype)
        runs = {name: partial(run, batches) for name, run in variants.items()}
        taken = in_turns(runs, config.rounds, device, untimed=0, tell=told.update)
    seconds = {name: [one / config.steps for one in times] for name, times in taken.items()}
    for name, times in seconds.items():
        row = _row(name, seconds, case.batch)
        row |= {"network": case.name, "sides": "x".join(map(str, case.sides))}
        row |= {"batch": case.batch, "precision": precision, "memory_mb": memory[name]}
        if work.get(name):
            row["of_bound"] = median(times) * bound / work[name]
        yield row


def _row(name: str, seconds: Mapping[str, Sequence[float]], batch: int) -> dict[str, Any]:
    """A variant's times, and what they are of others'."""
    times, kind = seconds[name], name.partition(": ")[2] or name
    against = {"of_forward": FORWARD, "of_plain": f"plain: {kind}", "of_method": kind}
    return {
        **{"variant": name, "ms": 1e3 * median(times)},
        **{"ms_min": 1e3 * min(times), "ms_max": 1e3 * max(times), "images_s": batch / min(times)},
        **{
            column: median(ratios(times, seconds[other]))
            for column, other in against.items()
            if other in seconds and other != name
        },
    }


def _variants(case: Case, config: SpeedConfig) -> dict[str, Run]:
    """What takes turns, by name."""
    variants: dict[str, Run] = {FORWARD: case.forward(config.device)}
    for name in config.methods_of(case):
        if name in LOOPS:
            variants[f"plain: {name}"] = LOOPS[name](case.network(config.device), case.rate)
        variants[name] = case.method(name, config.device)
    if "tent" in variants:
        variants |= passes(case, config.steps, config.device)
        variants |= of_pixels(case, config.device)
        if config.tried and case.task == "single":
            variants |= tried(case, config.device)
    return variants


def speed(config: SpeedConfig) -> str:
    """Measure all cases, and leave a table and a picture; returns the table."""
    rows: list[dict[str, Any]] = []
    folder = Path(config.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    with tqdm(desc="speed", unit="run", disable=None) as told:
        for case in [CASES[name].on(config.device) for name in config.networks]:
            for precision in config.precisions:
                if perf_counter() - start > config.limit:
                    print(f"left out, for time: {case.name} in {precision}")
                    continue
                rows += measure(case, precision, config, told)
                tables.write(folder / "speed.csv", COLUMNS, rows)  # what is measured stays
    save(picture(rows), folder / "speed.png")
    lines = [list(COLUMNS)]
    for row in rows:
        values = [row.get(name, "") for name in COLUMNS]
        lines.append([f"{v:.3g}" if isinstance(v, float) else str(v) for v in values])
    machine = torch.cuda.get_device_name() if config.gpu else f"{torch.get_num_threads()} threads"
    return f"{machine}, median of {config.rounds} rounds\n{aligned(lines)}"


@styled
def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """A step of each method, as a multiple of a forward pass, network by network."""
    networks = list(dict.fromkeys((row["network"], row["precision"]) for row in rows))
    figure = Figure(figsize=(9, 3 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 1, squeeze=False)[:, 0]
    for axes, (network, precision) in zip(panels, networks, strict=True):
        found = [r for r in rows if (r["network"], r["precision"]) == (network, precision)]
        found = [row for row in found if "of_forward" in row]
        colors = [GREY if row["variant"].startswith("plain") else BLUE for row in found]
        axes.bar(
            [row["variant"] for row in found], [row["of_forward"] for row in found], color=colors
        )
        axes.set_ylabel(f"{network}, {precision}\nforward passes")
        axes.tick_params(axis="x", rotation=60)
    return figure


main = script(SpeedConfig, speed)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
