"""Milliseconds per adaptation step, as ratios against a plain eager Tent loop measured in the same
run.

python -m holdfast.benchmarks.speed [rounds=5] [steps=20] [accelerator=auto]
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from lightning import Callback
from torch import Tensor, nn
from tqdm import tqdm

from holdfast.callbacks import CollapseGuard
from holdfast.datamodules import ImageSet, StreamLoader
from holdfast.tta import entry
from holdfast.tta.adaptation import AdaptationModule
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.networks import MODELS, create_network
from holdfast.tta.options import option

USAGE = (
    "usage: python -m holdfast.benchmarks.speed [key=value ...]\n\n"
    "Time a Tent step: plain loop, our method, Lightning, guard."
)
_CASES = (("compact", 28), ("resnet18", 64))
#: A GPU is kept busy by larger ones.
_LARGE = (("resnet50", 224),)
_CLASSES, _BATCH = tuple("abcd"), 64
#: Learning rate of the passes that may be guarded: noise teaches nothing but collapse, and the
#: guard would watch every batch.
_CALM = 1e-6
_RATIOS = (("method", "plain loop"), ("Lightning", "method"), ("Lightning + guard", "Lightning"))


@dataclass
class SpeedConfig:
    """Options of the speed benchmark."""

    rounds: int = option(5, "rounds; every variant runs once a round, in turn")
    steps: int = option(20, "steps of a variant in a round")
    warmup: int = option(3, "steps before the clock of a variant starts")
    accelerator: str = option("auto", "cpu, gpu (a CUDA device), or auto: a GPU where there is one")

    def __post_init__(self) -> None:
        there = torch.cuda.is_available()
        if self.accelerator == "auto":
            self.accelerator = "gpu" if there else "cpu"
        if self.accelerator not in ("cpu", "gpu"):
            raise InputError("accelerator must be auto, cpu or gpu")
        if self.accelerator == "gpu" and not there:
            raise InputError("accelerator=gpu: there is no CUDA device; use accelerator=cpu")
        if min(self.rounds, self.steps, self.warmup) < 1:
            raise InputError("rounds, steps and warmup must be at least 1")


def plain_tent(model: nn.Module, batches: Sequence[Tensor], lr: float = 1e-3) -> list[Tensor]:
    """Tent as one would write it down: the reference that speed is measured against."""
    model.train()
    model.requires_grad_(False)
    parameters = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(True)
            module.track_running_stats = False
            module.running_mean = module.running_var = None
            parameters += [module.weight, module.bias]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    outputs = []
    for images in batches:
        logits = model(images)
        loss = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        outputs.append(logits.detach())
    return outputs


def seconds_now(device: torch.device) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


class _Clock(Callback):
    """Times the batches of a pass, from the end of the warm-up to the end."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.start, self.seconds = warmup, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.warmup - 1:
            self.start = seconds_now(pl_module.device)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds = seconds_now(pl_module.device) - self.start


def measure(model: str, size: int, config: SpeedConfig, progress: Any) -> dict[str, list[float]]:
    """Milliseconds per step of each variant, one value a round."""
    device = torch.device("cuda" if config.accelerator == "gpu" else "cpu")
    rng, count = np.random.default_rng(0), _BATCH * (config.steps + config.warmup)
    images = ImageSet(
        images=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        labels=np.zeros(count, dtype=np.int64),
        ids=np.arange(count).astype(str),
        domains=np.full(count, "noise"),
        groups=np.arange(count).astype(str),
        class_names=_CLASSES,
    )
    loader = StreamLoader(images, np.arange(count), _BATCH)
    # Laid out as images usually are: those of the loader have their channels last already, which is
    # part of what is measured.
    tensors = [batch["image"].to(device).contiguous() for batch in loader]

    def network() -> nn.Module:
        torch.manual_seed(0)
        geometry: dict[str, Any] = {
            "num_classes": len(_CLASSES),
            "channels": 3,
            "size": (size, size),
        }
        return create_network(model, MODELS[model](), **geometry)[0].to(device)

    def tent(lr: float) -> Any:
        options: dict[str, Any] = {"num_classes": len(_CLASSES), "optimizer": "adam", "lr": lr}
        return create_method("tent", network(), **options)

    def timed(run: Callable[[Sequence[Tensor]], Any]) -> float:
        run(tensors[: config.warmup])
        start = seconds_now(device)
        run(tensors[config.warmup :])
        return seconds_now(device) - start

    def reference() -> float:
        source = network()
        return timed(lambda batches: plain_tent(source, batches))

    def method() -> float:
        ours = tent(1e-3)
        return timed(lambda batches: [ours(batch) for batch in batches])

    def lightning(*callbacks: Callback) -> float:
        clock = _Clock(config.warmup)
        quiet = {"enable_progress_bar": False, "accelerator": config.accelerator}
        arguments = entry.trainer_arguments(quiet, max_epochs=1, enable_checkpointing=False)
        arguments |= {"callbacks": [*callbacks, clock], "logger": False}
        module = AdaptationModule(tent(_CALM), _BATCH, bool(callbacks))
        entry.create_trainer(arguments).fit(module, loader)
        return clock.seconds

    variants: dict[str, Callable[[], float]] = {
        "plain loop": reference,
        "method": method,
        "Lightning": lightning,
        "Lightning + guard": lambda: lightning(CollapseGuard(_CLASSES)),
    }
    results: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(config.rounds):
        for name, variant in variants.items():
            results[name].append(1000 * variant() / config.steps)
            progress.update()
    return results


def ranged(values: Sequence[float], form: str) -> str:
    """Median, and range."""
    ends = f"{min(values):{form}}-{max(values):{form}}"
    return f"{statistics.median(values):{form}} ({ends})"


def speed(config: SpeedConfig) -> None:
    """Measure all cases and print a table."""
    gpu = config.accelerator == "gpu"
    cases = _CASES + _LARGE if gpu else _CASES
    total = len(cases) * config.rounds * 4
    with tqdm(total=total, desc="speed", unit="run", disable=None) as progress:
        tables = [(model, size, measure(model, size, config, progress)) for model, size in cases]
    machine = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads"
    print(f"{machine}, batch {_BATCH}, median of {config.rounds} rounds (min-max)")
    for model, size, results in tables:
        print(f"\n{model} at {size}x{size}")
        for name, values in results.items():
            print(f"  {name:<20}{ranged(values, '.1f')} ms a step")
        for variant, reference in _RATIOS:
            pairs = zip(results[variant], results[reference], strict=True)
            print(f"  {variant} / {reference}: {ranged([a / b for a, b in pairs], '.2f')}")


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""
    return entry.run(
        lambda: speed(entry.configured(SpeedConfig, {}, argv)), SpeedConfig, {}, USAGE, argv
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
