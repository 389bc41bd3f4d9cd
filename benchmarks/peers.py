"""Released code of others beside ours, on the same network, images and options, in one run: what a
step takes, and how far the logits are apart after ten. Nothing of theirs is kept here.

python -m holdfast.benchmarks.peers peers=DIR [networks=[compact]] [rounds=11]
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn
from tqdm import tqdm

from holdfast.benchmarks.plain import Step
from holdfast.benchmarks.rounds import CPU, in_turns, ranged, ratios
from holdfast.benchmarks.script import script
from holdfast.benchmarks.speed_cases import CASES, Case
from holdfast.benchmarks.summary import aligned
from holdfast.tta.errors import InputError
from holdfast.tta.methods import create_method
from holdfast.tta.options import option
from holdfast.tta.selection import norm_affine

#: Folder of each checkout, what is on the path within it, and its package of methods.
_PLACES = {
    "test-time-adaptation": ("classification", "methods"),
    "ttab": ("", "ttab.model_adaptation"),
    "torch-ttt": ("", "torch_ttt.engine"),
}
#: What their files import, and none of these methods calls: libraries, data sets, random views.
_UNCALLED = (
    *("torchvision", "torchvision.models", "torchvision.transforms", "models.model"),
    *("datasets.data_loading", "augmentations.transforms_cotta", "ttab.loads"),
    *("ttab.loads.datasets.loaders", "ttab.loads.define_dataset", "ttab.loads.models.resnet"),
    *("ttab.loads.models.wideresnet", "ttab.model_selection.group_metrics"),
)
#: Steps after which logits are compared, images a batch there, and rates that move logits.
_COMPARED, _SMALL, _ADAM, _SGD = 10, 16, 1e-3, 1e-2
#: Of views CoTTA has 32 as published. The margin of likeness would leave out all at its .05.
_VIEWS, _CLASSES, _ALIKE, _MARGIN = 4, 4, 0.8, 0.4 * math.log(4)
_HEAD = (
    *("project", "network", "method", "ours ms", "theirs ms", "ours / theirs"),
    *("on channels last", "moved", "apart"),
)
#: What draws a random view of ours.
_VIEW = "holdfast.tta.methods.informed.view_with_move"
Made = Callable[[nn.Module], Step]


@dataclass
class PeersConfig:
    """Options of the comparison."""

    peers: str = option("", f"folder of checkouts: {', '.join(_PLACES)}; one may do")
    networks: list[str] = option(["compact", "resnet18"], "cases of benchmarks.speed")
    rounds: int = option(11, "rounds, in which all take turns")
    steps: int = option(2, "steps of each in a round")


@contextmanager
def importable(folder: Path, package: str) -> Iterator[None]:
    """A checkout's modules can be imported one by one, and are forgotten afterwards."""
    held: dict[str, ModuleType] = {name: MagicMock() for name in _UNCALLED}
    held["models.model"].ResNetDomainNet126 = type("Unused", (), {})  # type: ignore[attr-defined]
    held[package] = ModuleType(package)  # so that nothing beside the method is imported
    held[package].__path__ = [str(folder / package.replace(".", "/"))]
    flip = patch(_VIEW, lambda images, generator: (images.flip(-1), None))
    before = {name: sys.modules[name] for name in held if name in sys.modules}
    sys.modules |= held
    try:
        with patch.object(sys, "path", [str(folder), *sys.path]), flip:
            yield
    finally:  # what torch imported meanwhile stays
        for name, module in list(sys.modules.items()):
            place = getattr(module, "__file__", None) or getattr(module, "__path__", "")
            if name in held or str(folder) in str(place):
                del sys.modules[name]
        sys.modules |= before


def _fishers(network: nn.Module) -> dict[str, list[Tensor]]:
    adapted = norm_affine(network)
    return {name: [torch.ones_like(p), p.detach().clone()] for name, p in adapted.items()}


def _tta(name: str, network: nn.Module) -> Step:
    """A method of test-time-adaptation. EATA would measure weights on data of its own. CoTTA's
    views are flips and it restores nothing: each side would draw in an order of its own.
    """
    group = SimpleNamespace
    rate = _SGD if name == "SAR" else _ADAM
    options = group(
        MODEL=group(EPISODIC=False, RESET_AFTER_NUM_UPDATES=0, ARCH=""),
        CORRUPTION=group(DATASET="cifar10_c"),
        OPTIM=group(STEPS=1, METHOD="Adam", LR=rate, BETA=0.9, WD=0.0, MOMENTUM=0.9),
        TEST=group(WINDOW_LENGTH=1, N_AUGMENTATIONS=_VIEWS),
        EATA=group(MARGIN_E0=0.4, D_MARGIN=_ALIKE, FISHER_ALPHA=0.0),
        SAR=group(RESET_CONSTANT_EM=0.0),
        M_TEACHER=group(MOMENTUM=0.999),
        COTTA=group(RST=0.0, AP=2.0),
        MIXED_PRECISION=False,
    )
    made = getattr(import_module(f"methods.{name.lower()}"), name)(options, network, _CLASSES)
    made.transform = lambda images: images.flip(-1)
    if name == "EATA":
        made.fisher_alpha, made.fishers = 1.0, _fishers(network)
    return made


def _ttab(name: str, network: nn.Module) -> Step:
    """A step of ttab, without its choice among checkpoints."""
    options = SimpleNamespace(
        **{"debug": False, "n_train_steps": 1, "seed": 0, "device": "cpu", "optimizer": "Adam"},
        **{"lr": _ADAM, "model_selection_method": "", "fisher_alpha": 1.0},
        **{"eata_margin_e0": _MARGIN, "eata_margin_d0": _ALIKE},
    )
    made = getattr(import_module(f"ttab.model_adaptation.{name.lower()}"), name)(options, network)
    batch, eata = import_module("ttab.api").Batch, name == "EATA"
    if eata:
        made.fishers = _fishers(made._model)

    def step(images: Tensor) -> Tensor:
        given = [made.current_model_probs] if eata else []
        told = made.one_adapt_step(
            made._model, made._optimizer, batch(images, None), *given, lambda label: nullcontext()
        )
        if eata:
            told, *_, made.current_model_probs = told
        return told["yhat"]

    return step


def _torch_ttt(name: str, network: nn.Module) -> Step:
    """An engine of torch-ttt, as for inference, that goes on from batch to batch."""
    options = {"num_steps": 1, "lr": _ADAM, "copy_model": False}
    given = () if name == "Tent" else (_MARGIN, _ALIKE, 1.0, _fishers(network))
    module = import_module(f"torch_ttt.engine.{name.lower()}_engine")
    engine = getattr(module, f"{name.capitalize()}Engine")(network, options, *given).eval()
    return lambda images: engine(images)[0]


def _ours(project: str, name: str, network: nn.Module) -> Step:
    """Our method, which answers once it has learned beside torch-ttt, as that does."""
    after = project == "torch-ttt"
    if name == "still":
        return create_method("source" if after else "norm", network, num_classes=_CLASSES)
    given: dict[str, Any] = {"optimizer": "adam", "lr": _ADAM}
    given["normalization"] = "source" if after else "batch"
    if name == "EATA":
        given["fisher"] = {key: torch.ones_like(p) for key, p in norm_affine(network).items()}
        given |= {"entropy_margin": _MARGIN, "redundancy_margin": _ALIKE}
    if name == "SAR":
        given |= {"optimizer": "sgd", "lr": _SGD, "reset_threshold": None}
    if name == "CoTTA":
        given |= {"threshold": 1.0, "restore": 0.0, "views": _VIEWS}
    made = create_method(name.lower(), network, num_classes=_CLASSES, **given)

    def answered(images: Tensor) -> Tensor:
        made(images)
        return made.predict(images).logits

    return answered if after else made


def _network(case: Case) -> nn.Module:
    """A case's network, whose running statistics are those of its images."""
    network = case.network(CPU).train()
    layers = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    for momentum in (1.0, 0.1):
        for layer in layers:
            layer.momentum = momentum
        network(case.batches(1, CPU)[0])
    return network.eval()


def _logits(made: Made, case: Case) -> Tensor:
    """Of ten small batches, in double precision: what is apart then is no rounding."""
    case = replace(case, batch=min(case.batch, _SMALL))
    torch.set_default_dtype(torch.float64)
    try:
        step = made(_network(case))
        return torch.stack([step(images).detach() for images in case.batches(_COMPARED, CPU)])
    finally:
        torch.set_default_dtype(torch.float32)


def _laid_out(made: Made, network: nn.Module) -> Step:
    """A step on channels last, which is how ours takes images on CPUs."""
    step = made(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return lambda images: step(images.contiguous(memory_format=torch.channels_last))


def _row(project: str, name: str, theirs: Made, case: Case, config: PeersConfig) -> list[str]:
    """A line of the table."""
    ours, still = (partial(_ours, project, one) for one in (name, "still"))
    told, own, unmoved = (_logits(made, case) for made in (theirs, ours, still))
    makers: dict[str, Made] = {"ours": ours, "theirs": theirs, "laid": partial(_laid_out, theirs)}
    steps = {key: made(_network(case)) for key, made in makers.items()}
    batches = case.batches(config.steps, CPU)

    def run(step: Step) -> None:
        for images in batches:
            step(images)

    taken = in_turns({key: partial(run, step) for key, step in steps.items()}, config.rounds)
    cells = [project, case.name, name.lower()]
    cells += [f"{1e3 * median(taken[key]) / config.steps:.0f}" for key in ("ours", "theirs")]
    cells += [ranged(ratios(taken["ours"], taken[key])) for key in ("theirs", "laid")]
    return [*cells, f"{(told - unmoved).abs().max():.2g}", f"{(told - own).abs().max():.0e}"]


def compare(config: PeersConfig) -> str:
    """A table with a line for each method of each project that is there."""
    work: list[tuple[str, Callable[[str, nn.Module], Step], str]]
    work = [("test-time-adaptation", _tta, name) for name in ("Tent", "EATA", "SAR", "CoTTA")]
    work += [("ttab", _ttab, "TENT"), ("ttab", _ttab, "EATA")]
    work += [("torch-ttt", _torch_ttt, "Tent"), ("torch-ttt", _torch_ttt, "EATA")]
    root, rows = Path(config.peers).expanduser().resolve(), [list(_HEAD)]
    found = [one for one in work if (root / one[0]).is_dir()]
    if not config.peers or not found:
        raise InputError(f"peers={config.peers} has no checkout of {', '.join(_PLACES)}: clone one")
    for project, made, name in tqdm(found, unit="method", disable=None):
        inside, package = _PLACES[project]
        with importable(root / project / inside, package):
            for case in map(CASES.__getitem__, config.networks):
                rows.append(_row(project, name, partial(made, name), case, config))
    return f"{torch.get_num_threads()} threads, {config.rounds} rounds\n{aligned(rows)}"


main = script(PeersConfig, compare)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
